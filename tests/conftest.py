"""Eight fake CPU devices for every test, and the graph with everything awkward in it.

The variables must be set before the first import of JAX, and pytest reads this file before any test. Set
JAX_PLATFORMS yourself to run the suite elsewhere; tolerances are those of a CPU's float32.

What one worker or script of a run has compiled, the others load: the suite mostly compiles, and its scripts are
processes of their own. The folder is new for every run, so that a test never meets a program of another version.
"""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import partial

# A shell leaves SIGINT ignored in what it starts in the background, and processes inherit that; tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["HIRE_JAX_OFFLINE"] = "1"  # no test asks the network; those of downloads have a server of their own
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()

# XLA's newer code generator for fused operations takes a third of the suite's time, and the older one computes the
# same; `users_jit` compiles with the newer one. A program that is compiled in parts, side by side, takes a fifth longer
# than a whole one where every core has a worker of its own. A jaxlib that no longer knows a choice ends a process that
# names it.
if "xla_cpu_use_fusion_emitters" not in os.environ["XLA_FLAGS"]:
    flags = f"{os.environ['XLA_FLAGS']} --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    if subprocess.run([sys.executable, "-c", "import jax; jax.devices()"], env=os.environ | {"XLA_FLAGS": flags},
                      capture_output=True).returncode == 0:
        os.environ["XLA_FLAGS"] = flags

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # workers and scripts inherit it from the first process
    folder = tempfile.mkdtemp(prefix="hire_jax_compiled_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ |= {"JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                   "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}

import jax
import numpy as np
import pytest
from hypothesis import settings

from hire_jax import HeteroGraph, SparseFeatures

# Compilation makes the first example slow, which is no defect; the same examples are drawn on every run.
settings.register_profile("hire_jax", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("hire_jax")


@pytest.fixture(scope="session")
def users_jit():
    """`jax.jit` by the code generator that users get; the tests where it has failed, or could, take this one."""
    if "xla_cpu_use_fusion_emitters=false" not in os.environ["XLA_FLAGS"]:
        return jax.jit
    return partial(jax.jit, compiler_options={"xla_cpu_use_fusion_emitters": True})


@pytest.fixture(scope="module")
def quick_compilation():
    """XLA without its optimisations, here and in the processes that a test starts: what is compiled once and run on a
    few numbers takes less to compile than to be made fast.

    For modules whose subject is what is computed and in which order. Losses, sparse products, and the layers held
    against PyG's values are tested as users compile them.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        compile_quickly(True)
        yield
    compile_quickly(False)


def compile_quickly(quickly: bool) -> None:
    """Leave XLA's optimisations out, or in again. `jit` takes a program compiled the other way for this one's, so it
    must forget those it has."""
    jax.config.update("jax_disable_most_optimizations", quickly)
    jax.clear_caches()


@pytest.fixture
def users_compilation(quick_compilation):
    """XLA with its optimisations, within a module that leaves them out: equality to the bit is of what users get."""
    compile_quickly(False)
    yield
    compile_quickly(True)


AWKWARD_NODES = {"paper": 7, "author": 5, "venue": 3}
AWKWARD_EDGES = {
    ("author", "writes", "paper"): [[0, 1, 1, 2, 0, 1], [3, 0, 0, 5, 1, 0]],  # author 1 to paper 0, three times
    ("author", "reviews", "paper"): [[3, 0, 2], [0, 0, 3]],
    ("paper", "cites", "paper"): [[1, 2, 0, 5, 3], [0, 2, 1, 4, 4]],  # a self loop on 2
    ("paper", "in", "venue"): [[0, 1, 2, 3], [0, 1, 1, 0]],  # no paper is in venue 2
    ("venue", "rev_in", "paper"): [[0, 1, 1, 0], [0, 1, 2, 3]],
    ("paper", "rev_writes", "author"): [[3, 0, 0, 5, 1, 0], [0, 1, 1, 2, 0, 1]],
    ("venue", "hosts", "author"): [[], []],  # no edges at all
}  # paper 6 and author 4 have no edge


def awkward_features() -> dict:
    """Dense for papers, sparse for authors (two of whose rows are empty), none for venues."""
    rng = np.random.default_rng(7)
    author = SparseFeatures.from_csr([0, 2, 2, 3, 5, 5], [0, 3, 1, 2, 2], [1.0, -2.0, 0.5, 1.0, 3.0], (5, 4))
    return {"paper": rng.normal(size=(7, 6)).astype(np.float32), "author": author}


@pytest.fixture(scope="session")
def awkward() -> HeteroGraph:
    """A featureless type, dense and sparse features, a relation without edges, isolated nodes, a self relation,
    two relations between the same types, duplicate edges."""
    return HeteroGraph.from_arrays(AWKWARD_NODES, AWKWARD_EDGES, awkward_features())


@pytest.fixture(scope="session")
def one_width(awkward: HeteroGraph) -> HeteroGraph:
    """The awkward graph with dense features of one width, 4."""
    rng = np.random.default_rng(5)
    return HeteroGraph.from_arrays(awkward.num_nodes, awkward.host_edges(), {
        name: rng.normal(size=(count, 4)).astype(np.float32) for name, count in awkward.num_nodes.items()})


@pytest.fixture
def rng() -> np.random.Generator:
    """The same numbers for every test, whichever ran before."""
    return np.random.default_rng(0)


@pytest.fixture
def awkward_arrays() -> tuple[dict, dict, dict]:
    """The arguments of `HeteroGraph.from_arrays` that make `awkward`."""
    return dict(AWKWARD_NODES), {k: np.array(v, int) for k, v in AWKWARD_EDGES.items()}, awkward_features()
