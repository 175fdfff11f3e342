"""The HGB form of heterogeneous graphs (Lv et al., arXiv 2112.14936): text files whose fields tabs separate.

| file | fields of a line |
|---|---|
| `node.dat` | id, name, type number, and where the type has features: numbers separated by commas |
| `link.dat` | source's id, destination's id, link type number, weight |
| `label.dat` (training), `label.dat.test` | id, name, type number, class numbers separated by commas |

Ids count the lines of `node.dat` from 0. `info.dat` names the numbers, but is not read: DBLP's states that authors
have no features, IMDB's misspells a link type. An `HGBForm` names them instead.
"""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from hire_jax.data.formats.arrays import Arrays, csr_arrays, unique_edges
from hire_jax.data.formats.text import DIGITS, NO_NUMBERS, Numbers, integer, read_numbers, shown
from hire_jax.data.npz import EdgeType
from hire_jax.data.originals import Originals

NODES, LINKS = "node.dat", "link.dat"
LABELS = {"train": "label.dat", "test": "label.dat.test"}
RANDOM_LABELS = "label.dat.test_full"
MAX_ENTRIES = 1 << 28  # numbers kept as the features of one node type; CSR takes 2 GiB for as many


@dataclass(frozen=True)
class HGBForm:
    """What the numbers in a dataset of the HGB form mean, and how its arrays are to be stored.

    Attributes:
        node_types: names, in the order of the type numbers.
        relations: {link type number: (source type, relation, destination type)}.
        target: the node type that has labels.
        num_classes: classes are numbered from 0.
        multilabel: whether a node may have several classes.
        dense: node types whose features are stored dense; those of other types as CSR.
        reverse: {relation: name of its reverse}, where that differs from the relation's own; either may come first.
            A reverse that `relations` lacks is added; one that it has must hold exactly the same links. A relation
            between nodes of one type that is its own reverse gets both directions of every link.
        split: name of the split; "" is the unnamed one.
        ignore_weights: whether links may have weights other than 1. They are left out: the npz form has none.

    Raises:
        ValueError: the attributes do not agree, or a name cannot stand in a key of the npz form.
    """

    node_types: tuple[str, ...]
    relations: Mapping[int, EdgeType]
    target: str
    num_classes: int
    multilabel: bool = False
    dense: tuple[str, ...] = ()
    reverse: Mapping[str, str] = field(default_factory=dict)
    split: str = ""
    ignore_weights: bool = False

    def __post_init__(self) -> None:
        ends = [node_type for start, _, end in self.relations.values() for node_type in (start, end)]
        for node_type in (self.target, *self.dense, *ends):
            if node_type not in self.node_types:
                raise ValueError(f"expected node types among {list(self.node_types)}, found {node_type!r}")
        names = [relation for _, relation, _ in self.relations.values()]
        for name in (*self.node_types, *names, *self.reverse.values(), self.split or "none"):
            if not name or "/" in name or "__" in name or name.strip("_") != name:
                raise ValueError(f"expected names without '/', '__' and '_' at either end, found {name!r}")
        for what, several in (("node_types", self.node_types), ("relations", tuple(self.relations.values()))):
            if len(set(several)) != len(several):
                raise ValueError(f"{what}: expected each once, found {several}")
        if any(self.reverse_name(self.reverse_name(name)) != name for name in (*names, *self.reverse)):
            raise ValueError(f"reverse: expected pairs of relations, found {dict(self.reverse)}")
        if self.num_classes < 1:
            raise ValueError(f"num_classes: expected at least 1, found {self.num_classes}")

    def reverse_name(self, relation: str) -> str:
        """The name of a relation's reverse."""
        return {**{name: other for other, name in self.reverse.items()}, **self.reverse}.get(relation, relation)


HGB = {
    "acm_hgb": HGBForm(
        node_types=("paper", "author", "subject", "term"),
        relations=dict(enumerate([
            ("paper", "cite", "paper"), ("paper", "ref", "paper"), ("paper", "to", "author"),
            ("author", "to", "paper"), ("paper", "to", "subject"), ("subject", "to", "paper"),
            ("paper", "to", "term"), ("term", "to", "paper"),
        ])),
        target="paper",
        num_classes=3,
        reverse={"cite": "ref"},
    ),
    "dblp_hgb": HGBForm(
        node_types=("author", "paper", "term", "venue"),
        relations=dict(enumerate([
            ("author", "to", "paper"), ("paper", "to", "term"), ("paper", "to", "venue"),
            ("paper", "to", "author"), ("term", "to", "paper"), ("venue", "to", "paper"),
        ])),
        target="author",
        num_classes=4,
        dense=("term",),
        split="hgb",
    ),
    "imdb_hgb": HGBForm(
        node_types=("movie", "director", "actor", "keyword"),
        relations=dict(enumerate([
            ("movie", "to", "director"), ("director", "to", "movie"), ("movie", "to", "actor"),
            ("actor", "to", "movie"), ("movie", "to", "keyword"), ("keyword", "to", "movie"),
        ])),
        target="movie",
        num_classes=5,
        multilabel=True,
    ),
}


def parse_hgb(files: Originals, form: HGBForm) -> Arrays:
    """The arrays of the npz form from a dataset of the HGB form (Lv et al., arXiv 2112.14936).

    Files are read line by line; of features only numbers other than 0 are kept. Nodes of a type keep the order of
    their ids, a split that of its file. Links that stand there twice count once.

    Args:
        files: node.dat, link.dat, label.dat and label.dat.test; others are not read.
        form: what their numbers mean; `HGB` has the forms of the published datasets.

    Raises:
        DatasetError: a file is missing, or a line is not what it should be; the message names it. So is an archive
            with a member label.dat.test_full.
    """
    for member in files.openers:
        if PurePosixPath(member).name == RANDOM_LABELS:
            raise files.error(member, None, "an archive without this file", "it: an early public archive of HGB's DBLP "
                              "carries it, and its labels are random; take the later archive")
    nodes = _read_nodes(files, form)
    arrays = {f"num_nodes/{name}": np.array(len(ids), np.int32)
              for name, ids in zip(form.node_types, nodes.members, strict=True)}
    for name, rows in zip(form.node_types, nodes.features, strict=True):
        arrays |= rows.arrays(f"x/{name}", dense=name in form.dense)
    return arrays | _read_links(files, form, nodes) | _read_labels(files, form, nodes)


class _Rows:
    """Features of one node type, row by row."""

    def __init__(self) -> None:
        self.first_line = 0  # the line that fixed the width
        self.width = 0
        self.lengths, self.columns, self.values = array("i"), array("i"), array("f")

    def append(self, numbers: Numbers) -> None:
        self.lengths.append(len(numbers.columns))
        self.columns.frombytes(numbers.columns.tobytes())
        self.values.frombytes(numbers.values.tobytes())

    def arrays(self, key: str, *, dense: bool) -> Arrays:
        """The features under `key`; none where the width is 0."""
        if not self.width:
            return {}
        shape = len(self.lengths), self.width
        rows = np.repeat(np.arange(shape[0], dtype=np.int32), self.lengths)
        columns, values = np.asarray(self.columns), np.asarray(self.values)
        if not dense:
            return csr_arrays(key, rows, columns, values, shape=shape)
        matrix = np.zeros(shape, np.float32)
        matrix[rows, columns] = values
        return {key: matrix}


class _Nodes(NamedTuple):
    types: array  # by id: type number
    ranks: array  # by id: place among the nodes of its type
    members: list[array]  # by type number: ids
    features: list[_Rows]  # by type number


def _read_nodes(files: Originals, form: HGBForm) -> _Nodes:
    several = range(len(form.node_types))
    nodes = _Nodes(array("i"), array("i"), [array("i") for _ in several], [_Rows() for _ in several])
    for line, text in files.lines(NODES):
        fields = text.split("\t")
        if len(fields) not in (3, 4):
            raise files.error(NODES, line, "id, name, type and perhaps features, separated by tabs", shown(text))
        node, kind = len(nodes.types), integer(fields[2])
        if integer(fields[0]) != node:
            raise files.error(NODES, line, f"the id {node}, the next in order", shown(fields[0]))
        if kind is None or kind >= len(form.node_types):
            raise files.error(NODES, line, f"a type from 0 to {len(form.node_types) - 1}", shown(fields[2]))
        nodes.types.append(kind)
        nodes.ranks.append(len(nodes.members[kind]))
        nodes.members[kind].append(node)
        rows = nodes.features[kind]
        numbers = read_numbers(files, NODES, line, fields[3]) if len(fields) == 4 and fields[3] else NO_NUMBERS
        if not rows.first_line:
            rows.first_line, rows.width = line, numbers.total
        if numbers.total != rows.width:
            expected = f"{rows.width} features, as of line {rows.first_line} of the same type"
            raise files.error(NODES, line, expected, str(numbers.total))
        rows.append(numbers)
        name = form.node_types[kind]
        if (rows.width * len(rows.lengths) if name in form.dense else len(rows.values)) > MAX_ENTRIES:
            raise files.error(NODES, line, f"at most {MAX_ENTRIES} features to keep of {name} nodes", "more")
    for kind, name in enumerate(form.node_types):
        if not nodes.members[kind]:
            raise files.error(NODES, None, f"nodes of the type {kind} ({name})", "none")
    return nodes


def _read_links(files: Originals, form: HGBForm, nodes: _Nodes) -> Arrays:
    """Edges of every relation and its reverse."""
    number = form.node_types.index
    wanted = {kind: (number(source), number(end)) for kind, (source, _, end) in form.relations.items()}
    links = {kind: (array("i"), array("i")) for kind in form.relations}
    types, count = nodes.types, len(nodes.types)
    for line, text in files.lines(LINKS):
        fields = text.split("\t")
        source, destination, kind = (integer(part) for part in fields[:3]) if len(fields) == 4 else (None,) * 3
        if source is None or destination is None or kind is None:
            raise files.error(LINKS, line, f"two ids, a type (up to {DIGITS} digits), a weight, by tabs", shown(text))
        if kind not in wanted:
            raise files.error(LINKS, line, f"a link type among {sorted(wanted)}", str(kind))
        if source >= count or destination >= count:
            raise files.error(LINKS, line, f"ids from 0 to {count - 1}", str(max(source, destination)))
        if (types[source], types[destination]) != wanted[kind]:
            start, _, end = form.relations[kind]
            found = f"{form.node_types[types[source]]} to {form.node_types[types[destination]]}"
            raise files.error(LINKS, line, f"{start} to {end}, the ends of link type {kind}", found)
        if fields[3] not in ("1", "1.0"):
            weight = read_numbers(files, LINKS, line, fields[3])
            if weight.total != 1 or not (form.ignore_weights or weight.values.tolist() == [1.0]):
                expected = "one weight" if form.ignore_weights else "the weight 1 (or a form with ignore_weights)"
                raise files.error(LINKS, line, expected, shown(fields[3]))
        links[kind][0].append(source)
        links[kind][1].append(destination)
    edges = {}
    for kind, relation in form.relations.items():
        if not links[kind][0]:
            raise files.error(LINKS, None, f"links of the type {kind} ({', '.join(relation)})", "none")
        edges[relation] = unique_edges(*(np.asarray(side) for side in links[kind]))
    ranks = np.asarray(nodes.ranks)
    return {f"edge/{'__'.join(relation)}": ranks[ids] for relation, ids in _mutual(files, form, edges).items()}


def _mutual(files: Originals, form: HGBForm, edges: Mapping[EdgeType, np.ndarray]) -> dict[EdgeType, np.ndarray]:
    """The edges of every relation and its reverse, which are the same ones."""
    both = dict(edges)
    for relation, ids in edges.items():
        source, name, destination = relation
        reverse = (destination, form.reverse_name(name), source)
        flipped = unique_edges(ids[1], ids[0])
        if reverse == relation:
            both[relation] = unique_edges(*np.concatenate([ids, flipped], axis=1))
        elif not np.array_equal(edges.get(reverse, flipped), flipped):
            lone = {tuple(pair) for pair in flipped.T.tolist()} ^ {tuple(pair) for pair in edges[reverse].T.tolist()}
            raise files.error(LINKS, None, f"{reverse} to be {relation} reversed",
                              f"{min(lone)} among {len(lone)} links of one that the other lacks")
        else:
            both[reverse] = flipped
    return both


def _read_labels(files: Originals, form: HGBForm, nodes: _Nodes) -> Arrays:
    """Labels of the target nodes, -1 where the files have none, and the split."""
    target = form.node_types.index(form.target)
    count = len(nodes.members[target])
    labels = np.full((count, form.num_classes) if form.multilabel else count, -1, np.int32)
    splits: Arrays = {}
    seen: dict[int, str] = {}
    for part, name in LABELS.items():
        chosen = array("i")
        for line, text in files.lines(name):
            fields = text.split("\t")
            if len(fields) != 4:
                raise files.error(name, line, "id, name, type and classes, separated by tabs", shown(text))
            node = integer(fields[0])
            if node is None or node >= len(nodes.types) or nodes.types[node] != target:
                raise files.error(name, line, f"the id of a {form.target} node", shown(fields[0]))
            if integer(fields[2]) != target:
                raise files.error(name, line, f"the type {target} ({form.target})", shown(fields[2]))
            if node in seen:
                raise files.error(name, line, f"node {node} once, found first in {seen[node]}", "it again")
            classes = [integer(part) for part in fields[3].split(",")]
            proper = [one for one in classes if one is not None and one < form.num_classes]
            if len(set(proper)) != len(classes) or (len(classes) > 1 and not form.multilabel):
                expected = f"{'distinct classes' if form.multilabel else 'one class'} from 0 to {form.num_classes - 1}"
                raise files.error(name, line, expected, shown(fields[3]))
            rank = nodes.ranks[node]
            labels[rank] = 0 if form.multilabel else proper[0]
            if form.multilabel:
                labels[rank, proper] = 1
            chosen.append(rank)
            seen[node] = f"{name}:{line}"
        if not chosen:
            raise files.error(name, None, "the labels of at least one node", "none")
        splits[f"split/{form.split}/{part}" if form.split else f"split/{part}"] = np.array(chosen, np.int32)
    return {f"y/{form.target}": labels, **splits}
