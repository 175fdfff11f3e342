"""A graph in parts: nothing is lost or twice, and every model, loss and gradient is that of the whole on one device."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

from hire_jax import GraphError, HeteroGraph, Objective, SparseFeatures
from hire_jax.models import (
    APPNP,
    GAT,
    GCN,
    GCNII,
    GKEDM,
    HAN,
    HGT,
    IEHGCN,
    MLP,
    RGCN,
    SGC,
    GATv2,
    GraphSAGE,
    HeteroSAGE,
    MoNet,
    SeHGNN,
    SimpleHGN,
)
from hire_jax.parallel.axis import AXIS
from hire_jax.parallel.partition import partition
from hire_jax.parallel.partitioned import Partitioned
from hire_jax.sampling import HostGraph

pytestmark = pytest.mark.usefixtures("quick_compilation")

COMMON = {"target": "paper", "num_classes": 3, "hidden": 8, "layers": 2, "dropout": 0.0}
LABELS, TRAIN = np.array([0, 1, 2, 0, 1, -1, 2]), np.array([1, 1, 0, 1, 1, 0, 1], bool)
MODELS = {
    "rgcn": RGCN(**COMMON),
    "rgcn sum of 3 layers": RGCN(**(COMMON | {"layers": 3}), bases=2, aggregation="sum"),
    "hgt": HGT(**COMMON, heads=2),
    "sage": HeteroSAGE(**COMMON),
    "simple_hgn": SimpleHGN(**COMMON, heads=2, edge_features=4),
    "gat": GAT(**COMMON, heads=2, residual=True),
    "gatv2": GATv2(**COMMON, heads=2),
    "graph_sage": GraphSAGE(**COMMON, normalise=True),
    "ie_hgcn": IEHGCN(**COMMON, attention_features=4),
    "mlp": MLP(**COMMON),
    "gcn": GCN(**COMMON),
    "gcn without norm": GCN(**COMMON, norm=False),
    "monet": MoNet(**COMMON),
    "gkedm": GKEDM(backbone=GAT(**COMMON, heads=2), heads=2, sign_flips=False, residual=True),
    "gkedm with a classifier": GKEDM(backbone=GCN(**COMMON), heads=2, readout="classifier", positions=False),
}
# Of one width for all types: they read the features as they are.
FEATURES = {
    "gcn of the literature": GCN(**COMMON, projection=False, norm=False),
    "gat of the literature": GAT(**COMMON, projection=False, norm=False, heads=2),
    "sgc": SGC(target="paper", num_classes=3, hops=2),
    "appnp": APPNP(**COMMON, hops=3),
    "gcnii": GCNII(**(COMMON | {"layers": 3})),
}


def parameters(model, graph):
    """Parameters of no special value: `init` starts biases at 0 and gates at 1."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), graph)
    rng = np.random.default_rng(1)
    return jax.tree.map_with_path(lambda path, leaf: (
        rng.normal(scale=0.4, size=leaf.shape) + (path[-1].key.split("_")[0] in ("scale", "prior", "skip"))
    ).astype(leaf.dtype), shapes)


@pytest.fixture(scope="module")
def positioned(awkward):
    """The awkward graph with positions."""
    rng = np.random.default_rng(4)
    return awkward.with_positions({name: rng.normal(size=(count, 2)).astype(np.float32)
                                   for name, count in awkward.num_nodes.items()})


def mapped(function, program, parts):
    """function(replicated, part) on the parts' devices; what comes out has a leading axis of devices."""
    part = parts.spread()
    if program == "pmap":
        run = jax.pmap(function, axis_name=AXIS, in_axes=(None, 0), devices=jax.devices()[:len(parts.parts)])
        return lambda replicated: run(replicated, part)
    mesh = Mesh(np.asarray(jax.devices()[:len(parts.parts)]), (AXIS,))
    run = jax.jit(jax.shard_map(
        lambda replicated, part: jax.tree.map(lambda x: x[None], function(replicated, jax.tree.map(
            lambda x: x[0], part))),
        mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec(AXIS)), out_specs=PartitionSpec(AXIS), check_vma=False))
    return lambda replicated: run(replicated, part)


class Case:
    """A model with parameters, a teacher, and its loss, gradient and output on the whole graph."""

    def __init__(self, model, graph):
        self.model, self.graph, self.params = model, graph, parameters(model, graph)
        rng = np.random.default_rng(2)
        shapes = jax.eval_shape(model.apply, self.params, graph)._replace(attention=())
        self.teacher = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
        paired = any(len(layer) > 1 for layer in shapes.hidden[1:-1])
        self.objective = Objective(soft_target_kl=1.0, type_pair_correlation=0.5 * paired, temperature=2.0)
        self.whole = jax.jit(lambda params: self.gradient(lambda p: model.apply(p, graph), params))

    def gradient(self, apply, params):
        """((loss, output), gradient)."""
        def loss(params):
            output = apply(params)._replace(attention=())
            labels, where = jnp.asarray(LABELS), jnp.asarray(TRAIN)
            return self.objective(output, labels, teacher=self.teacher, where=where)[0], output
        return jax.value_and_grad(loss, has_aux=True)(params)

    def in_parts(self, program, devices):
        parts = partition(HostGraph.from_graph(self.graph), devices)
        model = Partitioned(self.model)
        return mapped(lambda params, part: self.gradient(lambda p: model.apply(p, part), params), program, parts)


def assert_equal_on_all(ours, theirs, atol=1e-6):
    """Each device's against one device's: float32, numbers of the order of 1."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, np.broadcast_to(b, a.shape), rtol=1e-6, atol=atol),
                 ours, theirs)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)


# ---------------------------------------------------------------------------------------------- the parts


def known_nodes(parts, index):
    """{type: int[n]}: which node of the whole graph each row of a part is, own ones and what arrives; -1 for none."""
    part, count = parts.parts[index], len(parts.parts)
    known = {}
    for name, room in part.room:
        rows = np.full(part.graph.num_nodes[name], -1)
        own = np.flatnonzero(part.places[name] // room == index)
        rows[part.places[name][own] % room] = own
        halo, most = part.graph.halo.arriving[name], part.graph.halo.sent[name].size // count
        for place, arriving in enumerate(halo[:parts.needed[name][index].sum()]):
            sender, k = divmod(arriving, most)
            row = parts.parts[sender].graph.halo.sent[name][index * most + k]
            assert row < np.sum(part.places[name] // room == sender)  # one of the sender's own
            rows[room + place] = parts.parts[sender].ids[name][row]
        known[name] = rows
    return known


@pytest.mark.parametrize("count", [1, 2, 5, 8])
@pytest.mark.parametrize("division", ["ranges", "random", "papers on the last"])
def test_every_node_and_edge_is_in_one_part_and_halos_are_what_is_needed(awkward, count, division):
    rng = np.random.default_rng(count)
    owners = {"ranges": {}, "random": {name: rng.integers(count, size=n) for name, n in awkward.num_nodes.items()},
              "papers on the last": {"paper": np.full(7, count - 1)}}[division]
    parts = partition(HostGraph.from_graph(awkward), count, owners=owners)
    nodes, edges = {name: [] for name in awkward.node_types}, {edge_type: [] for edge_type in awkward.edge_types}
    for index, part in enumerate(parts.parts):
        known, own = known_nodes(parts, index), {}
        for name, room in part.room:
            own[name] = known[name][:room][known[name][:room] >= 0]
            assert own[name].size < room and (name not in owners or np.all(owners[name][own[name]] == index))
            np.testing.assert_array_equal(part.ids[name][:own[name].size], own[name])
            nodes[name] += own[name].tolist()
        needed = {name: set() for name in own}
        for (source, _, destination), (senders, receivers) in awkward.host_edges().items():
            needed[source] |= set(senders[np.isin(receivers, own[destination])]) - set(own[source])
        for name, room in part.room:
            assert sorted(known[name][room:][known[name][room:] >= 0]) == sorted(needed[name])
        for edge_type, (senders, receivers) in part.graph.host_edges().items():
            source, _, destination = edge_type
            mine = receivers < own[destination].size  # the others join rows that nobody reads
            edges[edge_type] += zip(known[source][senders[mine]].tolist(), known[destination][receivers[mine]].tolist(),
                                    strict=True)
    for name, ids in nodes.items():
        assert sorted(ids) == list(range(awkward.num_nodes[name]))
    for edge_type, whole in awkward.host_edges().items():
        assert sorted(edges[edge_type]) == sorted(zip(*whole.tolist(), strict=True))


def test_ranges_share_nodes_and_edges_and_only_own_nodes_have_features():
    rng = np.random.default_rng(0)
    receivers = np.minimum(rng.geometric(0.002, size=20000) - 1, 3999)  # the first nodes have most edges
    edges = np.stack([rng.integers(4000, size=20000), receivers])
    graph = HostGraph.from_arrays({"a": 4000}, {("a", "to", "a"): edges},
                                  {"a": rng.normal(size=(4000, 3)).astype(np.float32)})
    parts = partition(graph, 4)
    shares = []
    for index, part in enumerate(parts.parts):
        ids = np.flatnonzero(part.places["a"] // dict(part.room)["a"] == index)
        assert np.all(np.diff(ids) == 1)
        shares.append([ids.size / 4000, np.isin(receivers, ids).mean()])
        features = part.graph.features["a"]
        np.testing.assert_array_equal(features[:ids.size], graph.features["a"][ids])
        assert not np.any(features[ids.size:]) and len(features) == part.graph.num_nodes["a"]
    np.testing.assert_allclose(np.sum(shares, axis=0), 1)
    np.testing.assert_allclose(np.sum(shares, axis=1), 2 / 4, rtol=0.02)
    assert np.ptp(shares, axis=0).min() > 0.2  # neither alone is balanced
    exchanged = parts.exchanged_rows()["a"]
    assert exchanged.needed == parts.needed["a"].sum() <= exchanged.moved == 12 * parts.needed["a"].max()
    leaves = jax.tree.leaves(parts.parts[0])
    assert parts.device_bytes() == sum(x.size * x.dtype.itemsize for x in leaves)


@pytest.mark.parametrize("count", [1, 3])
def test_parts_are_spread_over_devices(awkward, count):
    parts = partition(HostGraph.from_graph(awkward), count)
    devices = jax.devices()[2:2 + count]
    spread = parts.spread(devices)
    for leaf, *theirs in zip(jax.tree.leaves(spread), *(jax.tree.leaves(part) for part in parts.parts), strict=True):
        assert [shard.device for shard in leaf.addressable_shards] == devices
        np.testing.assert_array_equal(leaf, np.stack(theirs))


def test_what_cannot_be_divided_so_is_refused(awkward):
    host = HostGraph.from_graph(awkward)
    with pytest.raises(TypeError, match=r"HostGraph\.from_graph gives, got HeteroGraph"):
        partition(awkward, 2)
    with pytest.raises(TypeError):
        partition(host, 2.0)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        partition(host, 0)
    for owners, message in (({"book": [0]}, "'book', which is unknown"), ({"venue": [0, 1]}, r"\[3\], one a node"),
                            ({"venue": [0.0, 1.0, 0.0]}, "integers"), ({"venue": [0, 2, 0]}, r"\[0, 2\), got 0 to 2")):
        with pytest.raises(GraphError, match=message):
            partition(host, 2, owners=owners)
    with pytest.raises(ValueError, match="devices must be 2, one a part, got 3"):
        partition(host, 2).spread(jax.devices()[:3])


# ------------------------------------------------------------------------------------------- the exchange


def test_a_halo_has_its_owners_rows_and_gives_its_gradient_to_them(awkward):
    """Each row has a number of its own, and so has each row's cotangent, but for rows that nobody reads."""
    parts = partition(HostGraph.from_graph(awkward), 5)
    known = np.stack([known_nodes(parts, index)["author"] for index in range(5)])
    room, places = dict(parts.parts[0].room)["author"], parts.parts[0].places["author"]
    rows = np.arange(1.0, 1 + known.size, dtype=np.float32).reshape(*known.shape, 1)
    cotangents = np.where(known[..., None] >= 0, rows ** 2, 0)

    def exchanged(arrays, part):
        own, cotangent = (array[jax.lax.axis_index(AXIS)] for array in arrays)
        values, pullback = jax.vjp(lambda x: part.graph.halo("author", x), own)
        return values, pullback(cotangent)[0]

    values, gradient = mapped(exchanged, "pmap", parts)((jnp.asarray(rows), jnp.asarray(cotangents)))
    np.testing.assert_array_equal(values[:, :room], rows[:, :room])
    expected = cotangents.copy()
    expected[:, room:] = 0
    halos = np.argwhere((known >= 0) & (np.arange(known.shape[1]) >= room))
    assert len(halos) == parts.exchanged_rows()["author"].needed > 3
    for part, row in halos:
        owner, rank = divmod(places[known[part, row]], room)
        assert values[part, row] == rows[owner, rank]
        expected[owner, rank] += cotangents[part, row]
    np.testing.assert_array_equal(gradient, expected)


def test_neighbours_see_the_mask_of_the_owners_dropout():
    """Leaves of a star, on four devices, that read nothing but its centre: all are alike only if they see one row of
    it. That row has zeros, and others with another key."""
    graph = HeteroGraph.from_arrays({"centre": 1, "leaf": 8}, {("centre", "to", "leaf"): [[0] * 8, range(8)]},
                                    {"centre": np.ones((1, 3), np.float32), "leaf": np.ones((8, 3), np.float32)})
    parts = partition(HostGraph.from_graph(graph), 4)
    student = RGCN(target="leaf", num_classes=32, hidden=32, layers=1, dropout=0.5, norm=False)
    params = parameters(student, graph)
    layer = params["params"]["RGCNLayer_0"]
    layer["root_leaf"], layer["kernel_centre->leaf"] = jnp.zeros((32, 32)), jnp.eye(32)[None]
    layer["bias_leaf"] = jnp.zeros(32)

    def rows(key, part):
        return Partitioned(student).apply(params, part, train=True, rngs={"dropout": key}).hidden[1]["leaf"]

    run = mapped(rows, "shard_map", parts)
    first, second = (np.asarray(run(key)) for key in jax.random.split(jax.random.key(0)))
    for leaves in (first, second):
        assert np.all(leaves == leaves[:1, :1]) and 4 < np.sum(leaves[0, 0] == 0) < 28
    assert np.any((first == 0) != (second == 0))


# ----------------------------------------------------------------------------------------- one device's


def test_three_steps_of_distillation_are_those_of_one_device(awkward):
    """Eight devices, which is more than any type has nodes: outputs, losses, gradients and parameters of every step."""
    case = Case(MODELS["rgcn"], awkward)
    in_parts, optimizer = case.in_parts("shard_map", 8), optax.sgd(0.5, momentum=0.9)
    assert set(case.objective.terms) == {"supervised", "soft_target_kl", "type_pair_correlation"}

    @jax.jit
    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state

    trained = [(case.params, optimizer.init(case.params))] * 2
    for _ in range(3):
        one, many = case.whole(trained[0][0]), in_parts(trained[1][0])
        assert_equal_on_all(many, one)
        trained = [step(*state, gradient) for state, gradient in zip(
            trained, (one[1], jax.tree.map(lambda x: x[0], many[1])), strict=True)]
    assert_equal_on_all(trained[1][0], trained[0][0])
    moved = jax.tree.map(lambda new, old: np.abs(new - old).max() > 0.01, trained[0][0], case.params)
    kept = [jax.tree_util.keystr(path) for path, leaf in jax.tree.leaves_with_path(moved) if not leaf]
    assert len(kept) == 1 and "kernel_venue->author" in kept[0]  # of the relation without edges


@pytest.mark.slow
@pytest.mark.parametrize("name", [*MODELS, *FEATURES])
def test_every_model_has_the_outputs_and_gradients_of_one_device(positioned, one_width, name):
    case = Case((MODELS | FEATURES)[name], positioned if name in MODELS else one_width)
    assert_equal_on_all(case.in_parts("pmap", 3)(case.params), case.whole(case.params))


@pytest.mark.slow
@pytest.mark.parametrize("program", ["pmap", "shard_map"])
@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_both_programs_on_any_number_of_devices(awkward, program, devices):
    case = Case(MODELS["hgt"], awkward)
    assert_equal_on_all(case.in_parts(program, devices)(case.params), case.whole(case.params))


def test_what_would_be_wrong_is_refused(awkward, one_width):
    for model in (HAN(target="paper", num_classes=3), SeHGNN(target="paper", num_classes=3)):
        with pytest.raises(ValueError, match=f"{type(model).__name__} would be wrong on a graph in parts"):
            Partitioned(model)
    parts = partition(HostGraph.from_graph(awkward), 2)

    def traced(model, graph, train=False):
        def function(variables, part):
            return Partitioned(model).apply(variables, part, train=train).logits
        return jax.eval_shape(mapped(function, "shard_map", graph), {})

    with pytest.raises(ValueError, match=r"GKEDM\(sign_flips=False\)"):
        traced(GKEDM(backbone=MODELS["gcn"]), parts, train=True)
    sparse = SparseFeatures.from_csr([0, 1, 2, 2, 2], [0, 1], [1.0, 2.0], (4, 3))
    cora = HeteroGraph.from_arrays({"paper": 4}, {("paper", "to", "paper"): [[0, 3], [1, 0]]}, {"paper": sparse})
    with pytest.raises(GraphError, match="sparse features of 'paper' as they are"):
        traced(GCN(**COMMON, projection=False, norm=False), partition(HostGraph.from_graph(cora), 2))
    run = jax.pmap(lambda part: Partitioned(MODELS["mlp"]).apply({}, part).logits, axis_name=AXIS,
                   devices=jax.devices()[:3])
    with pytest.raises(ValueError, match="in 2 parts, but the program is mapped over 3 devices"):
        run(jax.tree.map(lambda x: np.stack([x] * 3), parts.parts[0]))
