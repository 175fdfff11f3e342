"""Writes the tables of docs/data.md from the registry of datasets; the prose around them is written by hand.

Examples:
  python -m experiments.data_docs            # after hire_jax/data/registry.json was changed
  python -m experiments.data_docs --check    # exits 1 with the difference where the file is not current
"""

import dataclasses
import re
from pathlib import Path

from experiments.made_docs import write_or_check
from hire_jax.data.registry import Entry, entries

ROOT = Path(__file__).parents[1]
START, END = "<!-- from here: python -m experiments.data_docs -->", "<!-- to here -->"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to do."""

    check: bool = False
    """Write nothing; exit with status 1 and the difference where the file is not current."""
    out: Path = ROOT / "docs" / "data.md"
    """The file to write or check."""


def main(settings: Settings) -> None:
    """Writes the part between the two marks, or checks it.

    Raises:
      ValueError: the file lacks a mark.
    """
    text = settings.out.read_text()
    if text.count(START) != 1 or text.count(END) != 1:
        raise ValueError(f"{settings.out}: expected the marks {START!r} and {END!r} once each")
    before, _, rest = text.partition(START)
    made = f"{before}{START}\n\n{render(list(entries().values()))}\n{END}{rest.partition(END)[2]}"
    write_or_check(made, settings.out, check=settings.check, command="python -m experiments.data_docs")


def render(known: list[Entry]) -> str:
    """One table over all datasets, then one section for each."""
    rows = ["| name | nodes | edges | classes | target | to be had by |", "|---|---:|---:|---:|---|---|"]
    for entry in known:
        way = f"`{entry.way}`" if entry.way in ("get", "convert") else entry.way
        rows.append(f"| [`{entry.name}`](#{entry.name}) | {sum(count for count, _ in entry.nodes.values()):,} | "
                    f"{edges_of(entry)} | {len(entry.classes)}{', multi-label' if entry.multilabel else ''} | "
                    f"{entry.target} | {way} |")
    return "\n".join(rows) + "\n" + "".join(map(section, known))


def edges_of(entry: Entry) -> str:
    """The number of edges of all relations, or "not known"."""
    counts = [count for count in entry.edges.values() if count is not None]
    return f"{sum(counts):,}" if len(counts) == len(entry.edges) else "not known"


def section(entry: Entry) -> str:
    """All that is said of one dataset."""
    paper = re.sub(r"arXiv ([\d.]+\d)", r"[arXiv \1](https://arxiv.org/abs/\1)", entry.citation)
    nodes = ", ".join(f"{node_type} {count:,} ({'no features' if width is None else f'{width:,} features'})"
                      for node_type, (count, width) in entry.nodes.items())
    edges = ", ".join(f"{' '.join(edge_type)} {'' if count is None else format(count, ',')}".rstrip()
                      for edge_type, count in entry.edges.items())
    splits = ["/".join(str(size) if size else "-" for size in sizes) + (f" ({name})" if name else "")
              for name, sizes in (entry.splits or {}).items()]
    lines = [f"\n### {entry.name}\n", f"{entry.description}. {paper}.\n", f"- Nodes: {nodes}", f"- Relations: {edges}",
             f"- Classes: {', '.join(entry.classes) if len(entry.classes) <= 20 else len(entry.classes)}",
             f"- Splits, training/validation/testing: {'; '.join(shortened(splits)) or 'none or not known beforehand'}"]
    lines += [f"- {key.capitalize()}: {text}" for key, text in entry.notes.items()]
    lines += [f"- Licence: {entry.licence}",
              f"- Counts: {'of the files' if entry.counts_from == 'files' else 'as published'}"]
    return "\n".join(lines) + "\n"


def shortened(splits: list[str]) -> list[str]:
    """Ten splits of one size are said once."""
    return [splits[0], f"{len(splits) - 1} more"] if len(splits) > 5 else splits


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings, prog="python -m experiments.data_docs", description=__doc__))
