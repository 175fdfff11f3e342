"""The datasets known by name: what each holds, who published it, and where its original files are.

The facts stand in registry.json beside this file. Counts of graphs whose files were at hand are those of the
files ("counts_from": "files"), the others are as published. Every address is pinned to a commit, every file that
is fetched has a checksum.
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from hire_jax.data.errors import DatasetError
from hire_jax.data.fetch import RemoteFile
from hire_jax.graph import EdgeType

BUNDLED = ("citeseer", "imdb_gtn")


@dataclass(frozen=True)
class Source:
    """One way to get a dataset: files of one form.

    Attributes:
        form: how the files are read; a key of `hire_jax.data.build.PARSERS`.
        files: the files, with addresses and checksums.
    """

    form: str
    files: tuple[RemoteFile, ...]

    @property
    def fetchable(self) -> bool:
        """Whether every file has an address and a checksum."""
        return all(file.urls and (file.sha256 or file.git_blob_sha1) for file in self.files)


@dataclass(frozen=True)
class Entry:
    """What is known of a dataset before it is there.

    Attributes:
        name: the name that `load_dataset` takes.
        description: one line.
        citation: the paper, with its arXiv id.
        licence: what the source says of it.
        target: the node type with labels.
        classes: their names, in the order of their numbers; "class0", ... where the source names none.
        multilabel: whether a node may have several.
        nodes: {type: (count, feature width or None)}.
        edges: {edge type: count, or None where none is known}.
        splits: {name: (training, validation, test nodes)}, "" the unnamed one, 0 where validation is not given; None
            where the sizes are not known before the files are there.
        default_split: the one that `split=None` takes, or None: random.
        counts_from: "files" or "published".
        notes: {"features" or "split" or ...: a sentence}.
        sources: ways to get it, the first choice first.
    """

    name: str
    description: str
    citation: str
    licence: str
    target: str
    classes: tuple[str, ...]
    multilabel: bool
    nodes: Mapping[str, tuple[int, int | None]]
    edges: Mapping[EdgeType, int | None]
    splits: Mapping[str, tuple[int, int, int]] | None
    default_split: str | None
    counts_from: str
    notes: Mapping[str, str]
    sources: tuple[Source, ...]

    @property
    def way(self) -> str:
        """How it is had: "bundled", "generated", "get" (fetched), or "convert" (its files have to be brought)."""
        if self.name in BUNDLED:
            return "bundled"
        if not self.sources:
            return "generated"
        return "get" if any(source.fetchable for source in self.sources) else "convert"

    def meta(self) -> dict[str, Any]:
        """The `meta` of its npz file (see `hire_jax.data.npz`)."""
        return {"name": self.name, "target": self.target, "classes": list(self.classes), "multilabel": self.multilabel,
                "default_split": self.default_split, "description": self.description, "paper": self.citation,
                "licence": self.licence, **{f"{key}_note": text for key, text in self.notes.items()}}


def entries() -> dict[str, Entry]:
    """Every dataset of the registry, by name."""
    return {name: _entry(name, facts) for name, facts in _facts().items()}


def entry(name: str) -> Entry:
    """The entry of one dataset.

    Raises:
        DatasetError: there is none of this name; the message suggests the nearest.
    """
    known = entries()
    if name not in known:
        near = nearest(name, tuple(known))
        hint = f"; did you mean {' or '.join(near)}?" if near else f"; the registry has {', '.join(known)}"
        raise DatasetError(f"name: expected a dataset of the registry, found {name!r}{hint}")
    return known[name]


def nearest(name: str, names: tuple[str, ...]) -> list[str]:
    """At most three names that look like a misspelt one, the nearest first."""
    return difflib.get_close_matches(name.lower().replace("-", "_"), sorted(set(names)), n=3, cutoff=0.5)


def _facts() -> dict[str, Any]:
    text = resources.files("hire_jax.data").joinpath("registry.json").read_text(encoding="utf-8")
    facts: dict[str, Any] = json.loads(text)
    return facts


def _entry(name: str, facts: Mapping[str, Any]) -> Entry:
    classes = facts["classes"]
    splits = facts["splits"]
    return Entry(
        name=name, description=facts["description"], citation=facts["citation"], licence=facts["licence"],
        target=facts["target"], multilabel=facts["multilabel"], default_split=facts["default_split"],
        classes=tuple(f"class{i}" for i in range(classes)) if isinstance(classes, int) else tuple(classes),
        nodes={node_type: (count, width) for node_type, (count, width) in facts["nodes"].items()},
        edges={_edge_type(key): count for key, count in facts["edges"].items()},
        splits=None if splits is None else {key: (sizes[0], sizes[1], sizes[2]) for key, sizes in splits.items()},
        counts_from=facts["counts_from"], notes=facts["notes"],
        sources=tuple(Source(source["form"], tuple(_file(file, of) for file, of in source["files"].items()))
                      for source in facts["sources"]))


def _edge_type(key: str) -> EdgeType:
    source, relation, destination = key.split("__")
    return source, relation, destination


def _file(name: str, facts: Mapping[str, Any]) -> RemoteFile:
    return RemoteFile(name=name, urls=tuple(facts["urls"]), sha256=facts.get("sha256"), size=facts.get("size"),
                      git_blob_sha1=facts.get("git_blob_sha1"))
