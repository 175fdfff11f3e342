"""Malformed files and graphs, thousands of them, for everything here that reads what it cannot trust.

    python -m tests.fuzz.run                                    # 12,000 inputs over all cases
    python -m tests.fuzz.run --inputs 20000 --seed 1 --out report.json
    python -m tests.fuzz.run --case hgb --only 417 --seed 1     # one input again, and what it is
    python -m tests.fuzz.run --list                             # the cases

Each input is a small valid file or graph with one to four pieces of damage, drawn from the seed: the same seed gives
the same inputs. It may be accepted, if what comes out is a valid graph; or refused, by a DatasetError or GraphError
that names a place and says what was expected. Anything else is a finding: another exception, a warning, more time or
memory than allowed, a message that does not help, a graph that is not valid, the end of the process. Exit status 1 if
there is a finding.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from experiments.console import track
from tests.fuzz.outcome import Case, Limits, Outcome, judge, made, normalised
from tests.fuzz.pool import CASES, Task, cases_of, run

COLUMNS = ("inputs", "accepted", "refused", "distinct errors", "findings", "slowest ms")


@dataclass
class Tally:
    """What became of one case's inputs."""

    counts: Counter = field(default_factory=Counter)
    errors: Counter = field(default_factory=Counter)
    findings: list[Outcome] = field(default_factory=list)
    slowest: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Counts one outcome."""
        self.counts[outcome.kind] += 1
        self.slowest = max(self.slowest, outcome.seconds)
        if outcome.kind == "refused":
            self.errors[outcome.detail] += 1
        elif outcome.kind == "finding":
            self.findings.append(outcome)

    def row(self) -> tuple[int, ...]:
        """The numbers under COLUMNS."""
        return (self.counts.total(), self.counts["accepted"], self.counts["refused"], len(self.errors),
                len(self.findings), round(1000 * self.slowest))


def shares(names: Sequence[str], inputs: int) -> list[Task]:
    """Equal shares of the inputs, the first cases one more where it does not come out even."""
    share, more = divmod(inputs, len(names))
    return [(name, tuple(range(share + (place < more)))) for place, name in enumerate(names)]


def table(tallies: dict[str, Tally]) -> Table:
    """A line for each case, and their sum."""
    made_table = Table(title="malformed files and graphs", box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    made_table.add_column("case", no_wrap=True)
    for name in COLUMNS:
        made_table.add_column(name.replace(" ", "\n"), justify="right", no_wrap=True)
    for name, tally in tallies.items():
        made_table.add_row(name, *(f"{number:,}" for number in tally.row()), style="red" if tally.findings else None)
    rows = [tally.row() for tally in tallies.values()]
    total = [sum(column) for column in zip(*rows, strict=True)]
    made_table.add_section()
    made_table.add_row("all", *(f"{number:,}" for number in [*total[:-1], max(row[-1] for row in rows)]), style="bold")
    return made_table


def report(tallies: dict[str, Tally], options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """The same as JSON, with every distinct error and every finding."""
    cases = {name: dict(zip(COLUMNS, tally.row(), strict=True)) | {
        "errors": dict(tally.errors.most_common()), "found": [asdict(outcome) for outcome in tally.findings]}
        for name, tally in tallies.items()}
    return {"inputs": sum(tally.counts.total() for tally in tallies.values()), "seed": options.seed,
            "findings": sum(len(tally.findings) for tally in tallies.values()), "seconds": round(seconds, 1),
            "limits": {"seconds": options.limit, "mebibytes": options.memory}, "cases": cases}


def tell(tallies: dict[str, Tally], seed: int, console: Console) -> None:
    """Each finding that differs from the others of its case, and how to have it again."""
    for name, tally in tallies.items():
        told: Counter[str] = Counter()
        for outcome in tally.findings:
            told[normalised(outcome.detail.strip().splitlines()[-1])] += 1
            if told[normalised(outcome.detail.strip().splitlines()[-1])] == 1:
                console.print(f"\nfinding: {name}, input {outcome.number}\n{outcome.detail.strip()}\n"
                              f"again: python -m tests.fuzz.run --case {name!r} --only {outcome.number} --seed {seed}",
                              markup=False, highlight=False, soft_wrap=True)


def one(case: Case, options: argparse.Namespace, console: Console) -> int:
    """One input again, in this process: what it is, and what becomes of it."""
    value = made(case, options.seed, options.only)
    parts = value if isinstance(value, dict) else {"input": value}
    if options.keep is not None and all(isinstance(content, bytes) for content in parts.values()):
        for name, content in parts.items():
            place = options.keep / name.lstrip("/").replace("..", "_")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        console.print(f"its files are in {options.keep}", markup=False)
    for name, content in parts.items():
        console.print(f"{name!r}: {_shown(content)}", markup=False, highlight=False, soft_wrap=True)
    outcome = judge(case, options.seed, options.only, Limits(seconds=options.limit, mebibytes=options.memory))
    console.print(f"\n{outcome.kind} in {1000 * outcome.seconds:.0f} ms: {outcome.detail}", markup=False,
                  highlight=False, soft_wrap=True)
    return int(outcome.kind == "finding")


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes
        text = f"a value of type {type(value).__name__} that cannot be printed"
    return text if len(text) < 2000 else f"{text[:2000]}..."


def main(argv: Sequence[str] | None = None, console: Console | None = None) -> int:
    """The command line; returns the exit status: 0 no finding, 1 a finding, 2 wrong options, 130 stopped by Ctrl-C."""
    console = console or Console()
    parser = _parser()
    options = parser.parse_args(argv)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    cases = cases_of(options.cases)
    names = options.case or list(cases)
    if unknown := [name for name in names if name not in cases]:
        parser.error(f"--case: expected some of {', '.join(map(repr, cases))}, found {unknown[0]!r}")
    if options.list:
        for name in cases:
            console.print(name, markup=False)
        return 0
    if options.only is not None:
        if len(names) != 1:
            parser.error("--only: expected one --case with it")
        return one(cases[names[0]], options, console)
    tallies = {name: Tally() for name in names}
    start = time.monotonic()
    outcomes = run(shares(names, options.inputs), seed=options.seed, jobs=options.jobs, place=options.cases,
                   limits=Limits(seconds=options.limit, mebibytes=options.memory))
    done = 0
    with closing(outcomes), track(options.inputs, "fuzz", console=console) as tracker:
        try:
            for done, (name, outcome) in enumerate(outcomes, start=1):
                tallies[name].add(outcome)
                if done % 20 == 0 or done == options.inputs:
                    tracker.update(done, name)
        except KeyboardInterrupt:
            tracker.log(f"stopped after {done} of {options.inputs} inputs")
    seconds = time.monotonic() - start
    tell(tallies, options.seed, console)
    console.print(table(tallies))
    findings = sum(len(tally.findings) for tally in tallies.values())
    distinct = sum(len(tally.errors) for tally in tallies.values())
    console.print(f"{done:,} inputs in {seconds:.0f} s, seed {options.seed}: {distinct:,} distinct errors, "
                  f"crashes and other findings = {findings}", markup=False, soft_wrap=True)
    if options.out is not None:
        options.out.write_text(json.dumps(report(tallies, options, seconds), indent=1, ensure_ascii=True))
        console.print(f"report: {options.out}", markup=False)
    return 130 if done < options.inputs else int(findings > 0)


def _parser() -> argparse.ArgumentParser:
    title, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=title, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=_positive, default=12_000, metavar="N",
                        help="how many in all, in equal shares (default: 12000)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the inputs (default: 0)")
    parser.add_argument("--case", action="append", metavar="NAME", help="only this case; may be given several times")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="one input of one case again, in this process")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="with --only: write the input's files there")
    parser.add_argument("--jobs", type=_positive, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--limit", type=float, default=Limits.seconds, metavar="SECONDS",
                        help=f"time of one input (default: {Limits.seconds:g})")
    parser.add_argument("--memory", type=_positive, default=Limits.mebibytes, metavar="MIB",
                        help=f"address space that one input may add (default: {Limits.mebibytes})")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write a report as JSON")
    parser.add_argument("--cases", default=CASES, metavar="MODULE:NAME",
                        help=f"where the cases stand (default: {CASES})")
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
