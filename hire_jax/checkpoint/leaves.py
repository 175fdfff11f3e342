"""A state taken apart into named arrays and plain facts about them, and put together again bit for bit."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hire_jax.checkpoint.errors import CheckpointError

_WEAK_ZERO: dict[str, Any] = {"i": 0, "f": 0.0, "c": 0j}  # Python's numbers, which JAX types weakly


class Snapshot(NamedTuple):
    """A state on the host.

    Attributes:
      facts: of every leaf, in order: "path", "form" (dtype and shape, or the name of a Python type), "kind" ("array",
        "key", "scalar" or "none") and what that kind needs, all of them plain JSON.
      arrays: {place in facts, as a string: array}, without those of no elements.
    """

    facts: list[dict[str, Any]]
    arrays: dict[str, np.ndarray]


def snapshot(state: Any) -> Snapshot:
    """Copies every leaf to the host; the state's own buffers may be donated or overwritten at once.

    Args:
      state: a pytree of jax and numpy arrays, typed keys, and Python's bool, int and float.

    Raises:
      CheckpointError: a leaf of another type, or one whose parts this process does not hold.
    """
    facts, arrays = [], {}
    for number, (path, leaf) in enumerate(_leaves(state)):
        fact, array = _taken(path, leaf)
        facts.append(fact)
        if array is not None and array.size:
            arrays[str(number)] = array
    return Snapshot(facts, arrays)


def difference(like: Any, facts: list[dict[str, Any]]) -> str | None:
    """The first leaf in which a stored state differs from `like`, as "PATH: expected ..., found ..."; or None."""
    expected = {path: _form(path, leaf) for path, leaf in _leaves(like)}
    found = {fact["path"]: fact["form"] for fact in facts}
    for path in [*expected, *(path for path in found if path not in expected)]:
        ours, theirs = expected.get(path, "no such leaf"), found.get(path, "no such leaf")
        if ours != theirs:
            return f"state{path}: expected {ours}, found {theirs}"
    if list(expected) != list(found):
        return f"state: expected the leaves {list(expected)}, found them in the order {list(found)}"
    return None


def rebuilt(like: Any, taken: Snapshot) -> Any:
    """The state in `like`'s structure: numpy arrays where `like` has them, jax arrays elsewhere.

    Args:
      like: a pytree of which `difference` found nothing to say; its leaves may be `jax.ShapeDtypeStruct`.
      taken: what `snapshot` gave.
    """
    structure = jax.tree.structure(like, is_leaf=_is_none)
    leaves = [_put(leaf, fact, taken.arrays.get(str(number)))
              for number, ((_, leaf), fact) in enumerate(zip(_leaves(like), taken.facts, strict=True))]
    return jax.tree.unflatten(structure, leaves)


def _is_none(leaf: Any) -> bool:
    return leaf is None  # JAX drops None from a tree's leaves; a state that has one where another has none differs


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_none)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]


def _form(path: str, leaf: Any) -> str:
    if leaf is None or type(leaf) in (bool, int, float):
        return type(leaf).__name__
    if isinstance(leaf, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)):
        if _is_key(leaf):
            return f"{leaf.dtype}{list(leaf.shape)}"
        dtype = np.dtype(leaf.dtype)
        if dtype.kind in "biufc" or (dtype.kind == "V" and dtype.names is None and dtype.name != "void"):
            return f"{dtype.name}{list(leaf.shape)}"
        raise CheckpointError(f"state{path}: expected an array of numbers or typed keys, found dtype {dtype}")
    raise CheckpointError(f"state{path}: expected an array, a typed key or a Python number, found "
                          f"{type(leaf).__name__}")


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _taken(path: str, leaf: Any) -> tuple[dict[str, Any], np.ndarray | None]:
    fact: dict[str, Any] = {"path": path, "form": _form(path, leaf)}
    if leaf is None:
        return fact | {"kind": "none"}, None
    if isinstance(leaf, float):
        return fact | {"kind": "scalar", "value": leaf.hex()}, None  # NaN and infinities are no JSON
    if isinstance(leaf, int):
        return fact | {"kind": "scalar", "value": leaf}, None
    if isinstance(leaf, jax.ShapeDtypeStruct):
        raise CheckpointError(f"state{path}: expected values, found the shape {fact['form']} alone")
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        raise CheckpointError(f"state{path}: expected an array that every process holds whole, found one that is "
                              f"partitioned over processes ({leaf.sharding})")
    if _is_key(leaf):
        # The data of keys that many processes hold in common is a computation; each has a whole copy of its own.
        own = leaf if leaf.is_fully_addressable else leaf.addressable_data(0)
        array = np.array(jax.random.key_data(own))
        fact |= {"kind": "key", "impl": str(jax.random.key_impl(own))}
    else:
        array = np.array(leaf)  # a copy; np.asarray of an array on the CPU would be a view of JAX's own buffer
        fact |= {"kind": "array", "weak": isinstance(leaf, jax.Array) and leaf.weak_type}
    return fact | {"dtype": array.dtype.name, "shape": list(array.shape)}, array


def _put(like: Any, fact: dict[str, Any], array: np.ndarray | None) -> Any:
    if fact["kind"] == "none":
        return None
    if fact["kind"] == "scalar":
        return float.fromhex(fact["value"]) if fact["form"] == "float" else fact["value"]
    if array is None:
        array = np.empty(fact["shape"], jnp.dtype(fact["dtype"]))
    if fact["kind"] == "key":
        return jax.random.wrap_key_data(jnp.array(array), impl=fact["impl"])
    if isinstance(like, np.generic):
        return array[()]
    if isinstance(like, np.ndarray):
        return array
    if fact["weak"]:  # so that what is computed with it promotes, and compiles, as before
        zeros = jnp.broadcast_to(jnp.asarray(_WEAK_ZERO[array.dtype.kind]), array.shape)
        return zeros.at[...].set(array)
    return jnp.array(array)  # a copy: a donated buffer must not be numpy's
