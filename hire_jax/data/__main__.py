"""python -m hire_jax.data: the datasets known by name, one by one.

    list                    every dataset, its size, and whether it is here
    info NAME               what it holds, its paper, its licence, where its files are
    get NAME ...            fetch, check, convert; what is here already is only checked
    check [NAME ...]        is every graph that is here what the registry says?
    convert PATH            original files that you have: a folder, a zip archive or a file
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hire_jax.data.errors import DatasetError
from hire_jax.data.fetch import cache_folder
from hire_jax.data.load import bundled
from hire_jax.data.obtain import check_file, convert, get
from hire_jax.data.registry import BUNDLED, Entry, entries, entry


def main(argv: Sequence[str] | None = None, console: Console | None = None) -> int:
    """The command line; returns the exit status: 0 good, 1 a check failed, 2 it could not be done."""
    # Off a terminal nothing is cut: names are to be found by grep.
    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    options = _parser().parse_args(argv)
    folder = cache_folder() if options.folder is None else options.folder.expanduser()
    try:
        if options.command == "list":
            console.print(listing(folder))
        elif options.command == "info":
            console.print(description(entry(options.name), folder))
        elif options.command == "get":
            for name in options.names:
                get(name, folder, say=lambda line: console.print(line, soft_wrap=True, markup=False))
        elif options.command == "convert":
            convert(options.path, options.name, folder, unverified=options.unverified,
                    say=lambda line: console.print(line, soft_wrap=True, markup=False))
        else:
            return check(options.names, folder, console)
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; what was fetched so far is kept, the same command goes on", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    title, _, commands = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="python -m hire_jax.data", description=title,
                                     epilog=commands, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--folder", type=Path, metavar="DIR",
                        help="where datasets are (default: HIRE_JAX_DATA, else the platform's cache folder)")
    commands_of = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands_of.add_parser("list", parents=[shared], help="every dataset, its size, and whether it is here")
    info = commands_of.add_parser("info", parents=[shared], help="what one holds, its paper, licence and sources")
    info.add_argument("name", metavar="NAME")
    get_ = commands_of.add_parser("get", parents=[shared], help="fetch, check, convert")
    get_.add_argument("names", nargs="+", metavar="NAME")
    check_ = commands_of.add_parser("check", parents=[shared], help="compare what is here with the registry")
    check_.add_argument("names", nargs="*", metavar="NAME", help="default: every graph that is here")
    convert_ = commands_of.add_parser("convert", parents=[shared], help="convert original files that you have")
    convert_.add_argument("path", type=Path, metavar="PATH")
    convert_.add_argument("--name", metavar="NAME", help="which dataset; default: recognised by checksum")
    convert_.add_argument("--unverified", action="store_true",
                          help="also read forms that hold pickles without the registry's checksums")
    return parser


def available(folder: Path) -> dict[str, Path | None]:
    """{name: file} of the datasets that need no connection; None for a bundled file."""
    here: dict[str, Path | None] = {name: None for name in BUNDLED}
    return here | {path.stem: path for path in sorted(folder.glob("*.npz"))}


def listing(folder: Path) -> Table:
    """Every dataset of the registry in one table."""
    here = available(folder)
    table = Table(title=f"datasets; cache: {folder}", title_style="",
                  caption="here: in the cache, bundled or generated; or by `get`; or by `convert` from files you bring")
    for column in ("name", "nodes", "edges", "classes", "target", "here"):
        table.add_column(column, no_wrap=True)
    for known in entries().values():
        counts = [count for count in known.edges.values()]
        edges = "?" if None in counts else f"{sum(count or 0 for count in counts):,}"
        state = "cache" if here.get(known.name) else known.way
        table.add_row(known.name, f"{sum(count for count, _ in known.nodes.values()):,}", edges,
                      f"{len(known.classes)}{', multi-label' if known.multilabel else ''}", known.target, state)
    return table


def description(known: Entry, folder: Path) -> Table:
    """All that the registry says of one dataset."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    here = available(folder)
    rows: list[tuple[str, str]] = [
        (known.name, known.description), ("paper", known.citation), ("licence", known.licence),
        ("target", f"{known.target}, {len(known.classes)} classes{' (multi-label)' if known.multilabel else ''}: "
                   + ", ".join(known.classes[:20]) + (", ..." if len(known.classes) > 20 else ""))]
    rows += [("nodes", f"{node_type} {count:,}, " + ("no features" if width is None else f"{width:,} features"))
             for node_type, (count, width) in known.nodes.items()]
    rows += [("edges", f"{' '.join(edge_type)} {'?' if count is None else format(count, ',')}")
             for edge_type, count in known.edges.items()]
    rows += [("split", f"{name or '(unnamed)'} {'/'.join(str(size) if size else '-' for size in sizes)}")
             for name, sizes in (known.splits or {}).items()]
    rows += list(known.notes.items())
    rows.append(("counts", "of the files" if known.counts_from == "files" else "as published"))
    where = here.get(known.name)
    rows.append(("here", str(where) if where else known.way if known.way in ("bundled", "generated") else "no"))
    for source in known.sources:
        folders = Counter(url.rpartition("/")[0] for file in source.files for url in file.urls)
        rows += [("source", f"{count} of {len(source.files)} files from {place}") for place, count in folders.items()]
    for key, text in rows:
        table.add_row(key, text)
    return table


def check(names: Sequence[str], folder: Path, console: Console) -> int:
    """Checks the named datasets, or every one that is here, and prints a table; 1 if one is not in order."""
    if not folder.is_dir() and folder.exists():
        raise DatasetError(f"--folder: expected a folder, found the file {folder}")
    here, known = available(folder), entries()
    for name in names:
        if name not in here:
            way = entry(name).way  # raises with the nearest names
            raise DatasetError(f"{name}: expected {folder / name}.npz, found nothing; " + (
                "it is generated, so that there is nothing to check" if way == "generated"
                else f"python -m hire_jax.data {way} {'PATH --name ' if way == 'convert' else ''}{name}"))
    if not folder.is_dir():
        console.print(f"{folder}: no such folder; only bundled graphs are checked", soft_wrap=True, markup=False)
    table, failed = Table(), []
    for column in ("name", "nodes", "edges", "splits", "result"):
        table.add_column(column, no_wrap=column == "name")
    for name in names or here:
        try:
            path = here[name]
            if path is None:
                with bundled(name) as file:
                    row = _checked(file, known.get(name))
            else:
                row = _checked(path, known.get(name))
            table.add_row(name, *row, "as registered" if name in known else "in order, not registered")
        except DatasetError as error:
            table.add_row(name, "", "", "", "FAILED")
            failed.append(str(error))
    console.print(table)
    for message in failed:
        console.print(message, soft_wrap=True, markup=False)
    console.print(f"{len(names or here) - len(failed)} of {len(names or here)} in order")
    return 1 if failed else 0


def _checked(path: Path, known: Entry | None) -> tuple[str, str, str]:
    raw = check_file(path, known)
    return (f"{sum(raw.num_nodes.values()):,}", f"{sum(edges.shape[1] for edges in raw.edges.values()):,}",
            ", ".join(name or "(unnamed)" for name in raw.splits) or "none")


if __name__ == "__main__":
    sys.exit(main())
