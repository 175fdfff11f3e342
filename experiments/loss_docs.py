"""Writes docs/losses.md, the table of losses, from their docstrings.

A loss's docstring has, in this order: one sentence of purpose, formulas as `::` blocks, the sections Cost, Use and
Pitfalls in front of Args, and References, each with an arXiv id or the words "no arXiv id" and why.

Examples:
  python -m experiments.loss_docs            # after a docstring was changed
  python -m experiments.loss_docs --check    # exits 1 with the difference where the file is not current
"""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from experiments.made_docs import write_or_check
from hire_jax import losses

ROOT = Path(__file__).parents[1]
SECTIONS = ("Cost", "Use", "Pitfalls")

GROUPS: dict[str, tuple[str, ...]] = {
    "Logits": ("soft_target_kl", "bernoulli_kl", "reverse_kl", "jensen_shannon", "decoupled_kd", "dist", "logit_mse"),
    "Features": ("hint", "attention_transfer", "cosine_embedding", "contrastive", "linear_cka", "vid"),
    "Structure": ("rkd_distance", "rkd_angle", "similarity_preserving", "local_structure", "global_structure"),
    "Heterogeneous": ("type_pair_correlation", "typed_local_structure", "class_prototype_correlation"),
    "Attention": ("attention_map_kl",),
    "Reliability, for `weights=` of a loss": (
        "entropy_reliability", "correctness_reliability", "attention_reliability"),
    "Shares in classes, for `classes=` of a loss": ("neighbour_shares",),
}

HEAD = """\
# Losses

Made from the docstrings by `python -m experiments.loss_docs`; a test holds it current. `help(hire_jax.losses.hint)`
has the arguments, shapes and edge cases as well.

What all losses share:

- Arrays in, a scalar out; of a reliability one number a row, of shares in classes one a row and class. A loss that is
  one of each row is a mean over rows, of a sum over classes, or of a mean over features where the formula says
  `mean_c`. A loss that shrinks with the number of rows says so in its pitfalls.
- Losses on softened class probabilities are multiplied by T², so that the gradient's size stays about the same when T
  changes. `contrastive` has a temperature of its own kind, without that factor.
- `where` is a mask of rows. What other rows hold, NaN included, has no influence; with no row left the loss is 0 and
  its gradient 0.
- `weights`, where a loss has it, makes the mean a weighted one: over rows, node types or relations; 0 leaves one
  out.
- The teacher's arrays and the weights are constants: no gradient flows into them.
- Half precision is raised to float32. Every loss works under `jit`, `vmap` and `grad`.

Formulas: t and s mark teacher and student, v, i, j and u are rows (nodes), c is a class or a feature, z are logits, h
features. Costs are of a value with its gradient: N rows, C classes, D features (D_s of the student, D_t of the
teacher), E edges.
"""


@dataclasses.dataclass(frozen=True)
class LossDoc:
    """What the table says of one loss. Formulas are pairs (the words before, the lines)."""

    name: str
    module: str
    purpose: str
    formulas: tuple[tuple[str, str], ...]
    cost: str
    use: str
    pitfalls: str
    references: tuple[str, ...]

    @property
    def papers(self) -> tuple[str, ...]:
        """arXiv ids."""
        return tuple(re.findall(r"arXiv:(\d{4}\.\d{4,5})", " ".join(self.references)))


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to do."""

    check: bool = False
    """Write nothing; exit with status 1 and the difference where the file is not current."""
    out: Path = ROOT / "docs" / "losses.md"
    """The file to write or check."""


def main(settings: Settings) -> None:
    """Writes the file, or checks it."""
    write_or_check(render(collect()), settings.out, check=settings.check, command="python -m experiments.loss_docs")


def collect() -> list[LossDoc]:
    """The losses of `hire_jax.losses.__all__`, in the order of `GROUPS`."""
    listed = [name for names in GROUPS.values() for name in names]
    if sorted(listed) != sorted(losses.__all__):
        raise ValueError("GROUPS in experiments/loss_docs.py and hire_jax.losses.__all__ differ in: "
                         + ", ".join(sorted(set(listed) ^ set(losses.__all__))))
    functions = [getattr(losses, name) for name in listed]
    return [parse(function.__name__, inspect.getdoc(function) or "", function.__module__) for function in functions]


def parse(name: str, docstring: str, module: str = "") -> LossDoc:
    """The parts of a loss's docstring.

    Raises:
      ValueError: a part that is missing or out of place, with the names of loss and part.
    """
    text = r"(.+(?:\n  .+)*)\n"  # a line, and its continuation, indented
    sections = re.search(rf"^Cost: {text}Use: {text}Pitfalls: {text}\nArgs:\n", docstring, re.MULTILINE)
    if sections is None:
        missing = [f"'{part}:'" for part in SECTIONS if not re.search(f"^{part}: ", docstring, re.MULTILINE)]
        raise ValueError(f"{name}: its docstring lacks the section {' and '.join(missing)}" if missing else
                         f"{name}: Cost, Use and Pitfalls are to stand in this order, without gaps, right before Args")
    cost, use, pitfalls = map(_one_line, sections.groups())
    body = docstring[:sections.start()]
    first = re.match(r"(.+?\.)(?:\s|$)", body, re.DOTALL)
    if first is None:
        raise ValueError(f"{name}: its docstring starts with no sentence")
    formulas = tuple(_formulas(body[first.end():]))
    if not formulas:
        raise ValueError(f"{name}: its docstring has no formula, an indented block after '::'")
    references = re.search(r"^References:\n((?:  .+\n?)+)", docstring, re.MULTILINE)
    if references is None:
        raise ValueError(f"{name}: its docstring has no section 'References:'")
    entries = tuple(_one_line(entry) for entry in re.split(r"\n  (?! )", "\n" + references[1])[1:])
    for entry in entries:
        if not re.search(r"arXiv:\d{4}\.\d{4,5}$|; no arXiv id", entry):
            raise ValueError(f"{name}: a reference has neither an arXiv id at its end nor '; no arXiv id' and why: "
                             f"{entry}")
    return LossDoc(name=name, module=module, purpose=_one_line(first[1]), formulas=formulas, cost=cost, use=use,
                   pitfalls=pitfalls, references=entries)


def _formulas(body: str) -> Iterator[tuple[str, str]]:
    """Each `::` block, less its indentation, with the paragraph that leads to it."""
    for found in re.finditer(r"((?:.+\n)*.+)::\n\n((?:    .*\n|\n(?=    ))*    .*)", body):
        block = "\n".join(line.removeprefix("    ") for line in found[2].splitlines())
        yield _one_line(found[1]), block


def _one_line(text: str) -> str:
    return " ".join(text.split())


def render(docs: list[LossDoc]) -> str:
    """The whole file."""
    by_name = {doc.name: doc for doc in docs}
    parts = [HEAD]
    for group, names in GROUPS.items():
        parts.append(f"\n## {group}\n\n| loss | purpose | paper | cost |\n|---|---|---|---|\n")
        for doc in (by_name[name] for name in names):
            papers = ", ".join(f"[{paper}](https://arxiv.org/abs/{paper})" for paper in doc.papers) or "-"
            cells = (f"[`{doc.name}`](#{doc.name})", doc.purpose, papers,
                     doc.cost.partition(". ")[0].removesuffix("."))
            parts.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n")
    for group, names in GROUPS.items():
        parts.append(f"\n## {group.partition(',')[0]}, one by one\n")
        parts += [_section(by_name[name]) for name in names]
    return "".join(parts)


def _section(doc: LossDoc) -> str:
    lines = [f"\n### {doc.name}\n", f"{doc.purpose}\n"]
    for words, formula in doc.formulas:
        lines += [f"{words}:\n", f"```\n{formula}\n```\n"]
    references = [re.sub(r"arXiv:([\d.]+\d)", r"[arXiv:\1](https://arxiv.org/abs/\1)", reference)
                  for reference in doc.references]
    path = doc.module.replace(".", "/") + ".py"
    lines += [f"- Cost: {doc.cost}", f"- Use: {doc.use}", f"- Pitfalls: {doc.pitfalls}",
              *(f"- Source: {reference}" for reference in references), f"- Code: [{path}](../{path})"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings, prog="python -m experiments.loss_docs", description=__doc__))
