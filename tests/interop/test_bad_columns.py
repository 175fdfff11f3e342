"""Tables and options that do not fit: what each thing that is wrong says."""

import re
from collections.abc import Mapping

import numpy as np
import pytest
import scipy.sparse

from hire_jax import GraphError
from hire_jax.interop import Imported, from_columns

WRITES, CITES = ("author", "writes", "paper"), ("paper", "cites", "paper")
UNUSED = {"paper": ["topic", "part"]}
KINDS = {"paper": ["venue"]}


def imported(nodes, edges, **options) -> Imported:
    return from_columns(nodes, edges, **{"categorical": KINDS, "ignore": UNUSED, **options})


def put(table, column, values):
    def change(nodes, edges):
        tables = nodes if table in nodes else edges
        tables[table][column] = values

    return change


def drop(table, column):
    return lambda nodes, edges: (nodes if table in nodes else edges)[table].pop(column)


BAD = {
    "unknown id": (put(WRITES, "source", [10, 11, 70]),
                   r"edge table \(author, writes, paper\), row 1, column 'source': expected an id of node type "
                   r"'author' "
                   r"\(3 ids such as 70 \(int\)\), found 11 \(int\), which none has \(1 such rows\)"),
    "ids of another kind": (put(WRITES, "source", ["10", "10", "70"]), r"found '10' \(str\), which none has \(3 such"),
    "ids twice": (put("author", "id", [70, 10, 70]),
                  r"node table 'author', row 2, column 'id': expected each id once, as in node table 'author', row 0, "
                  r"found 70 \(int\) again"),
    "string ids twice": (put("paper", "id", list("abcdab")), r"row 4, column 'id': .* row 0, found 'a' \(str\) again"),
    "a missing id": (put("author", "id", [70, None, 30]), r"row 1, column 'id': expected an id .* found nothing"),
    "an empty id": (put("author", "id", ["a", "", "b"]), r"row 1, column 'id': expected an id .* found nothing"),
    "float ids": (put("author", "id", [70.0, np.nan, 30.0]),
                  r"row 0, column 'id': expected an id .* found 70.0 \(float\); pandas makes floats of integers"),
    "bool ids": (put("author", "id", [True, False, True]), r"row 0, column 'id': .* found True \(bool\)"),
    "mixed ids": (put("author", "id", [70, "a", 30]), r"row 1, column 'id': .* throughout\), found 'a' \(str\)"),
    "vast ids": (put("author", "id", [70, 2**64, 30]), r"column 'id': expected an id \(integers below 2\*\*63"),
    "unsigned ids": (put("author", "id", np.array([70, 2**63, 30], np.uint64)), r"row 1, .*found 9223372036854775808"),
    "ids in two columns": (put("author", "id", np.ones((3, 2), int)), r"row 0, column 'id': expected an id"),
    "no id column": (drop("author", "id"), r"node table 'author': expected a table of named columns, .* found dict "
                                           "without columns"),
    "another id column": (drop("paper", "id"), r"node table 'paper': expected a column 'id' \(the nodes' ids\), found "
                                               r"the columns \['year', 'length', 'venue', 'topic', 'part'\]"),
    "no source": (drop(CITES, "source"), r"edge table \(paper, cites, paper\): expected a column 'source' \(the edges' "
                                         r"sources\), found the columns \['destination'\]"),
    "no nodes": (put("author", "id", []), r"node table 'author': expected at least one row, found none"),
    "ends of two lengths": (put(CITES, "source", ["p1"]), r"'destination': expected 1 rows like the other columns, "
                                                          "found 3"),
    "a short column": (put("paper", "year", [1, 2]), r"node table 'paper', column 'year': expected 6 rows like the "
                                                     "other columns, found 2"),
    "a short category": (put("paper", "venue", ["a"]), r"column 'venue': expected 6 rows like the other columns"),
    "NaN": (put("paper", "year", [1, 2, np.nan, 4, 5, 6]), r"node table 'paper', row 2, column 'year': expected finite "
                                                           r"numbers up to 3.4e\+38, found nothing"),
    "infinity": (put(WRITES, "share", [1, np.inf, 2]), r"\(author, writes, paper\), row 1, column 'share': .*found "
                                                       r"inf"),
    "beyond float32": (put("paper", "year", [1, 2, 3, 1e39, 5, 6]), r"row 3, column 'year': .*found 1e\+39"),
    "beyond float64": (put("paper", "year", [1, 2, 3, 10**400, 5, 6]), r"row 3, column 'year': expected a finite"),
    "a missing number": (put("paper", "year", [1, None, 3, 4, 5, 6]), r"row 1, column 'year': .*found nothing"),
    "text": (put("paper", "year", ["a", "b", "c", "d", "e", "f"]),
             r"row 0, column 'year': expected a finite number, .* found 'a' \(str\); name the column in ignore=, or, "
             r"if it "
             r"tells kinds apart, in categorical="),
    "numbers as text": (put("paper", "year", list("123456")), r"row 0, column 'year': .* found '1' \(str\)"),
    "a mixture": (put("paper", "year", [1, "b", 3, 4, 5, 6]), r"row 1, column 'year': .* found 'b' \(str\)"),
    "truth among numbers": (put("paper", "year", [1, True, 3, 4, 5, 6]), r"row 1, column 'year': .* found True "
                                                                         r"\(bool\)"),
    "vectors of two lengths": (put("paper", "year", [[1, 2]] * 5 + [[1]]), r"column 'year': .*vectors of one length"),
    "dates": (put("paper", "year", np.zeros(6, "datetime64[s]")), r"column 'year': expected numbers \[N\] or \[N, "
                                                                  r"F\] or "
                                                                   r"strings \[N\], found datetime64\[s\] of shape "
                                                                   r"\[6\]"),
    "complex": (put("paper", "year", np.zeros(6, complex)), r"column 'year': .* found complex128"),
    "bytes": (put("paper", "year", np.array([b"a"] * 6)), r"column 'year': .* found \|S1"),
    "a cube": (put("paper", "year", np.zeros((6, 2, 2))), r"column 'year': .* found float64 of shape \[6, 2, 2\]"),
    "no iteration": (put("paper", "year", scipy.sparse.eye(6)), r"column 'year': expected a column of values, found "
                                                                r"dia_matrix \(TypeError: "),
    "one value": (put("paper", "year", 2000), r"column 'year': expected a column of values, found 2000"),
    "a string": (put("paper", "year", "123456"), r"column 'year': expected a column of values in order, found str"),
    "a dict": (put("paper", "year", {i: i for i in range(6)}), r"column 'year': .* in order, found dict"),
    "masked": (put("paper", "year", np.ma.masked_equal([1, 2, 3, 4, 5, 6], 2)), r"row 1, column 'year': .*found "
                                                                                r"nothing"),
    "no category": (put("paper", "venue", ["a", None, "b", "a", "a", "a"]), r"row 1, column 'venue': expected a kind "
                                                                            r".* "
                                                                            "found nothing"),
    "categories mixed": (put("paper", "venue", ["a", 1, "b", "a", "a", "a"]), r"row 1, column 'venue': .* found 1 "
                                                                              r"\(int"),
    "fractions as categories": (put("paper", "venue", [0.5] * 6), r"row 0, column 'venue': .* found 0.5 \(float\)"),
    "columns named by numbers": (put("author", 3, [1, 2, 3]), r"node table 'author': expected columns named by "
                                                              r"distinct "
                                                              r"strings, found \['id', 3\]"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables(nodes, edges, case):
    change, message = BAD[case]
    change(nodes, edges)
    with pytest.raises(GraphError, match=message):
        imported(nodes, edges)


OPTIONS = {
    "ignore of nothing": ({"ignore": {"paper": ["topics"]}}, r"ignore: expected columns of node table 'paper' without "
                          r"another role, \['year', .*\], found 'topics'"),
    "ignored ids": ({"ignore": UNUSED | {"author": ["id"]}}, r"ignore: expected columns of node table 'author' without "
                    r"another role, \[\], found 'id'"),
    "twice named": ({"ignore": {"paper": ["topic", "part", "venue"]}}, r"categorical: .* found 'venue'"),
    "an unknown type": ({"ignore": {"papers": ["topic"]}}, r"ignore: expected types among \['paper', 'author', "
                        r"\('author', 'writes', 'paper'\), \('paper', 'cites', 'paper'\)\], found 'papers'"),
    "no list": ({"categorical": {"paper": "venue"}}, r"categorical: expected a list of columns for 'paper', found "
                "'venue'"),
    "no mapping": ({"categorical": ["venue"]}, r"categorical: expected \{type: \[columns\]\}, found \['venue'\]"),
    "rows of columns": ({"ignore": {"paper": np.zeros((2, 2))}}, "ignore: expected a list of columns for 'paper', "
                        "found array"),
    "too long to print": ({"id": 10**5000}, r"id: expected a column's name .*, found a very large one \(int\)"),
    "id of no kind": ({"id": 3}, r"id: expected a column's name or \{type: name\}, found 3"),
    "id of an unknown type": ({"id": {"papers": "id"}}, r"id: expected types among .*, found 'papers'"),
    "id of another kind": ({"id": {"paper": 3}}, r"id: expected a column's name for 'paper', found 3"),
    "one column for both ends": ({"source": "destination"}, r"source, destination: expected two columns for .*found "
                                 "'destination' for both"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_bad_options(nodes, edges, case):
    options, message = OPTIONS[case]
    with pytest.raises(GraphError, match=message):
        imported(nodes, edges, **options)


def test_bad_arguments(nodes, edges):
    for arguments, message in (
            ((nodes["paper"], {}), r"node table 'id': expected a table of named columns, .* found list"),
            (([nodes], edges), r"nodes: expected a mapping of types to tables, found list"),
            ((nodes, None), r"edges: expected a mapping of types to tables, found NoneType"),
            (({1: nodes["paper"]}, {}), r"nodes: expected node types named by strings, found 1"),
            (({}, {}), r"num_nodes is empty"),
            ((nodes, {("author", "paper"): edges[WRITES]}), r"an edge type must be a tuple \(source, relation, dest"),
            ((nodes, {("author", "writes", "book"): edges[WRITES]}), r"destination type 'book' is unknown"),
            ((nodes, {WRITES: None}), r"edge table \(author, writes, paper\): expected a table .* found NoneType"),
            ((nodes, {WRITES: 5}), r"edge table \(author, writes, paper\): expected a table .* found int")):
        with pytest.raises(GraphError, match=message):
            from_columns(*arguments)


def test_a_table_that_fails(nodes, edges):
    class Broken(Mapping):
        def __getitem__(self, name):
            raise RuntimeError("the disk is gone")

        def __iter__(self):
            return iter(["id"])

        def __len__(self):
            return 1

    class Column:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("the disk is gone")

    with pytest.raises(GraphError, match=r"node table 'author', column 'id': expected a column, found RuntimeError"):
        imported(nodes | {"author": Broken()}, edges)
    nodes["paper"]["year"] = Column()
    with pytest.raises(GraphError, match=r"column 'year': expected a column that converts to numpy, found Column"):
        imported(nodes, edges)


def test_a_title_is_no_category(nodes, edges, monkeypatch):
    monkeypatch.setattr("hire_jax.interop.table.MAX_CELLS", 35)
    nodes["paper"]["venue"] = list("abcdef")
    with pytest.raises(GraphError, match=r"column 'venue': expected at most 5 different values in 6 rows, found 6"):
        imported(nodes, edges)


def test_ids_that_are_not_there(nodes, edges):
    found = imported(nodes, edges)
    for call, message in (
            (lambda: found.index("paper", "p9"), r"ids of 'paper': expected one of 6 ids such as 'p3' \(str\), found "
                                                 r"'p9'"),
            (lambda: found.index("author", "70"), r"ids of 'author': .* found '70' \(str\)"),
            (lambda: found.index("author", True), r"found True \(bool\)"),
            (lambda: found.index("author", 70.0), r"found 70.0 \(float\)"),
            (lambda: found.index(["paper"], 1), r"node_type: expected one of \['paper', 'author'\], found \['paper'\]"),
            (lambda: found.index("venue", 1), r"node_type: expected one of \['paper', 'author'\], found 'venue'"),
            (lambda: found.index("paper", ["p1"]), r"expected ids, found a value that no id can be"),
            (lambda: found.indices("paper", "p1"), r"expected several ids, found 'p1' \(str\); index\(\) takes one"),
            (lambda: found.indices("paper", 3), r"expected several ids, found 3")):
        with pytest.raises(GraphError, match=message):
            call()


def test_messages_stay_short(nodes, edges):
    nodes["paper"]["year"] = ["x" * 10_000] * 6
    with pytest.raises(GraphError) as raised:
        imported(nodes, edges)
    assert len(str(raised.value)) < 400 and re.search(r"x{40}\.\.\.", str(raised.value))
