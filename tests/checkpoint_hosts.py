"""One of two processes that save and restore one state, for test_checkpoint.py.

    python checkpoint_hosts.py FOLDER PROCESS PORT
"""

import sys
import warnings
from pathlib import Path

import jax
import numpy as np

from hire_jax.checkpoint import CheckpointError, Checkpoints, CheckpointWarning, graceful_stop


def main(folder, process, port):
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=process, initialization_timeout=60)
    mesh = jax.make_mesh((jax.device_count(),), ("device",))
    replicated, spread = jax.NamedSharding(mesh, jax.P()), jax.NamedSharding(mesh, jax.P("device"))

    def state_of(number):
        return {"w": jax.device_put(np.arange(5_000_000, dtype=np.float32) + number, replicated),
                "key": jax.jit(lambda: jax.random.key(number), out_shardings=replicated)(), "n": number,
                "empty": np.zeros((0, 2))}

    # Only process 0's folder is ever used: hosts need no disk in common.
    own = folder / str(process)
    with Checkpoints(own, config={"hosts": 2}, timeout=60) as checkpoints:
        assert checkpoints.restore(state_of(0)) is None
        for number in (1, 2, 3):
            checkpoints.save(number, state_of(number), score=-number, place={"epoch": number})
        found, best = checkpoints.restore(state_of(0)), checkpoints.best(state_of(0))
        assert (found.step, found.place, best.step, best.score) == (3, {"epoch": 3}, 1, -1.0)
        for restored in (found, best):
            expected = state_of(restored.step)
            np.testing.assert_array_equal(restored.state["w"], expected["w"].addressable_data(0))
            np.testing.assert_array_equal(jax.random.key_data(restored.state["key"]),
                                          jax.random.key_data(expected["key"].addressable_data(0)))
            assert restored.state["n"] == restored.step and restored.state["empty"].shape == (0, 2)
    assert own.exists() == (process == 0)

    if process == 0:
        (own / "3" / "state" / "_METADATA").write_text("{}")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert Checkpoints(own, config={"hosts": 2}).restore(state_of(0)).step == 2
    assert [warning.category for warning in told] == [CheckpointWarning] * (process == 0)
    try:
        Checkpoints(own, config={"hosts": 3}).restore(state_of(0))
    except CheckpointError as error:
        assert "config 'hosts': expected 3, found 2" in str(error), error
    else:
        raise AssertionError("expected an error in every process")
    try:
        Checkpoints(folder / "spread" / str(process), config={}).save(1, {"w": jax.device_put(np.zeros(8), spread)})
    except CheckpointError as error:
        assert process == 0 and "partitioned over processes" in str(error), error

    with graceful_stop() as stop:
        assert not stop.agreed()
        stop.requested = process == 1
        assert stop.agreed()
    jax.distributed.shutdown()
    print("done")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
