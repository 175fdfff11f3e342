"""Which room may import which, and what every public name has: the table of docs/architecture.md, held by ast."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import hire_jax

ROOT = Path(__file__).parents[1]
FILES = sorted(path for folder in ("hire_jax", "experiments") for path in (ROOT / folder).rglob("*.py"))
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in FILES}

# room -> (other rooms it may import, third-party packages it may import)
ROOMS: dict[str, tuple[set[str], set[str]]] = {
    "files": (set(), set()),
    "identity": (set(), set()),
    "losses": (set(), {"jax", "optax", "numpy"}),
    "sparse": (set(), {"jax", "numpy"}),
    "graph": ({"sparse"}, {"jax", "jraph", "numpy", "scipy"}),
    "metapaths": ({"graph", "sparse"}, {"numpy", "scipy"}),
    "models": ({"graph", "metapaths", "sparse"}, {"jax", "flax", "numpy"}),
    "data": ({"files", "graph", "sparse"},
             {"jax", "numpy", "filelock", "pooch", "pyarrow", "requests", "rich", "urllib3"}),
    "metrics": (set(), {"jax", "numpy"}),
    "report": (set(), {"numpy", "rich", "scipy"}),
    "figures": ({"files", "report"}, {"numpy", "matplotlib"}),
    "supervised": (set(), {"jax", "optax"}),
    "positions": ({"files", "graph"}, {"numpy", "scipy"}),
    "terms": ({"graph", "losses"}, {"jax"}),
    "distill": ({"identity", "supervised", "terms"}, {"jax"}),
    "conflicts": (set(), {"jax"}),
    "teachers": ({"_version", "data", "files", "models"}, {"jax", "numpy"}),
    "sampling": ({"graph", "models", "sparse", "teachers"}, {"jax", "jraph", "numpy", "scipy"}),
    "training": ({"checkpoint", "conflicts", "data", "distill", "graph", "metrics", "models", "sparse", "supervised",
                  "teachers"}, {"jax", "flax", "numpy", "optax"}),
    "checkpoint": ({"_version", "files"}, {"jax", "flax", "numpy", "optax", "orbax"}),
    "parallel": ({"checkpoint", "distill", "graph", "identity", "metrics", "models", "sampling", "sparse",
                  "supervised", "terms", "training"}, {"jax", "flax", "numpy", "optax"}),
    "interop": ({"data", "files", "graph", "sparse"}, {"jax", "networkx", "numpy", "torch", "torch_geometric"}),
    "_version": (set(), set()),
}


def imported(tree):
    """Every module an import statement names, wherever it stands; `from a import b` names a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(name):
    return Path(name).parts[1].removesuffix(".py")


def test_every_file_of_the_package_is_in_a_room():
    rooms = {room_of(name) for name in TREES if name.startswith("hire_jax/")} - {"__init__"}
    assert rooms == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_upward(room):
    rooms, packages = ROOMS[room]
    for name, tree in TREES.items():
        if not name.startswith("hire_jax/") or room_of(name) != room:
            continue
        for module in imported(tree):
            top, *rest = module.split(".")
            if top == "hire_jax":
                assert rest[0] in rooms | {room}, f"{name} imports {module}"
            elif top not in sys.stdlib_module_names:
                assert top in packages, f"{name} imports {module}"


def test_the_rooms_form_one_direction():
    """The table itself has no cycle."""
    left = {room: set(rooms) for room, (rooms, _) in ROOMS.items()}
    while left:
        free = {room for room, rooms in left.items() if not rooms}
        assert free, f"a cycle among {sorted(left)}"
        left = {room: rooms - free for room, rooms in left.items() if room not in free}


def test_no_files_import_each_other():
    """Neither two nor a ring of them, within a room as between rooms."""
    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): tree
               for name, tree in TREES.items() if name.startswith("hire_jax/")}

    def file_of(name):
        return name if name in modules else name.rpartition(".")[0]

    left = {module: {file_of(name) for name in imported(tree)} & set(modules) for module, tree in modules.items()}
    while left:
        free = {module for module, needed in left.items() if not needed}
        assert free, f"a cycle among {sorted(left)}"
        left = {module: needed - free for module, needed in left.items() if module not in free}


def test_the_package_knows_nothing_of_experiments_or_tests():
    for name, tree in TREES.items():
        if name.startswith("hire_jax/"):
            assert not {module.split(".")[0] for module in imported(tree)} & {"experiments", "tests"}, name


def test_only_the_kernels_know_how_products_are_executed():
    for name, tree in TREES.items():
        if name.startswith("hire_jax/") and name != "hire_jax/sparse/kernels.py":
            assert not any(module.startswith("jax.experimental") and "multihost_utils" not in module
                           for module in imported(tree)), name


def test_no_private_module_of_jax_is_imported():
    for name, tree in TREES.items():
        for module in imported(tree):
            top, *rest = module.split(".")
            assert top not in ("jax", "flax", "optax") or not any(part.startswith("_") for part in rest), name


def test_public_names():
    tree = TREES["hire_jax/__init__.py"]
    assert len(hire_jax.__all__) == len(set(hire_jax.__all__))
    assert all(hasattr(hire_jax, name) for name in hire_jax.__all__)
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    bound = {alias.asname or alias.name for node in imports for alias in node.names}
    assert bound == set(hire_jax.__all__)  # what is imported is public, and nothing else is
    # it lists names and does nothing else
    assert all(isinstance(node, ast.ImportFrom | ast.Assign) for node in tree.body[1:])
    assert {"HeteroGraph", "Objective", "fit", "load_dataset", "losses", "models"} <= set(hire_jax.__all__)


def test_losses_need_no_other_room():
    """Someone who reuses a loss imports no graph, no Flax and no training loop."""
    program = ("import sys, importlib.util, types; package = types.ModuleType('hire_jax'); "
               f"package.__path__ = [{str(ROOT / 'hire_jax')!r}]; sys.modules['hire_jax'] = package; "
               "import hire_jax.losses; print(sorted(m for m in sys.modules if m.split('.')[0] in "
               "('flax', 'jraph', 'scipy.sparse') or m.startswith('hire_jax.') and 'losses' not in m))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------------ pickles


def test_nothing_unpickles():
    """Pickles are read by `hire_jax.data.pickle_reader`, which calls nothing."""
    for name, tree in TREES.items():
        modules = {module.split(".")[0] for module in imported(tree)}
        risky = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
        assert not modules & risky, name
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            assert called not in ("pickle.load", "pickle.loads", "eval", "exec"), f"{name}: {called}"
            if called in ("np.load", "numpy.load", "np.lib.format.read_array"):
                allowed = [k.value for k in node.keywords if k.arg == "allow_pickle"]
                assert [ast.literal_eval(value) for value in allowed] == [False], f"{name}: {ast.unparse(node)}"


# --------------------------------------------------------------------------------------------- docstrings


def undocumented(tree):
    """Names of the module, its public functions and classes and their public methods without a docstring."""
    if not ast.get_docstring(tree):
        yield "the module"
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            yield node.name
        if isinstance(node, ast.ClassDef) and "Protocol" not in map(ast.unparse, node.bases):
            yield from (f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)
                        and not part.name.startswith("_") and not ast.get_docstring(part))


@pytest.mark.parametrize("name", [name for name, tree in TREES.items() if tree.body])
def test_everything_public_has_a_docstring(name):
    assert list(undocumented(TREES[name])) == []


def test_every_module_can_be_imported():
    names = [module.name for module in pkgutil.walk_packages(hire_jax.__path__, "hire_jax.")]
    assert "hire_jax.models.rgcn" in names
    for name in names:
        importlib.import_module(name)


def test_published_methods_are_cited():
    """Architectures, losses and what the training loop uses: each docstring has its paper's arXiv id."""
    for name, papers in {"hire_jax/models/rgcn.py": "1703.06103", "hire_jax/models/hgt.py": "2003.01332",
                         "hire_jax/models/dropout.py": "1207.0580", "hire_jax/losses/logits.py": "1503.02531",
                         "hire_jax/losses/relational.py": "2207.11887", "hire_jax/distill.py": "2207.11887"}.items():
        assert papers in (ROOT / name).read_text(), name
