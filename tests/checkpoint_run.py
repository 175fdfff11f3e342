"""A small training run that is killed at random moments and started again, for test_checkpoint.py.

    python checkpoint_run.py FOLDER KILLS STEPS

prints one line of JSON: what the undisturbed and the disturbed run ended with, and the newest checkpoint after each
kill. The runs are forked from a process that has imported everything, and has no JAX backend yet.
"""

import json
import multiprocessing
import os
import random
import sys
import time
from pathlib import Path

IMPORTS = ["hire_jax.checkpoint", "optax", "orbax.checkpoint"]  # by the process that is forked, for all runs


def training():
    """A first state and a compiled step, with a donated state, two dtypes, and noise from a key."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    optimiser = optax.adamw(1e-2)
    all_rows = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)

    @jax.jit
    def first():
        params = {"wide": jnp.full((16, 8), 0.1), "narrow": jnp.full((8, 3), 0.1, jnp.bfloat16)}
        return {"params": params, "optimiser": optimiser.init(params), "key": jax.random.key(5)}

    def train_step(state, index):
        key, noise = jax.random.split(state["key"])
        rows = all_rows[index]
        rows = rows + 0.1 * jax.random.normal(noise, rows.shape)

        def loss(params):
            hidden = jnp.tanh(rows @ params["wide"])
            return jnp.mean((hidden @ params["narrow"].astype(jnp.float32) - rows[:, :3]) ** 2)

        value, gradient = jax.value_and_grad(loss)(state["params"])
        updates, after = optimiser.update(gradient, state["optimiser"], state["params"])
        return {"params": optax.apply_updates(state["params"], updates), "optimiser": after, "key": key}, value

    all_rows = jnp.asarray(all_rows)
    return first(), jax.jit(train_step, donate_argnums=0)


def digest(state):
    import hashlib

    import jax
    import numpy as np

    state = state | {"key": jax.random.key_data(state["key"])}
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state))).hexdigest()


def run(folder, steps, started, hold):
    """Trains up to `steps` steps; `started` is set once it can be asked to stop. With `hold` it waits at the end."""
    import numpy as np

    from hire_jax.checkpoint import Checkpoints, graceful_stop

    state, train_step = training()
    order, first = np.random.default_rng(1), 0
    with Checkpoints(folder, config={"rate": 1e-2, "steps": steps}) as checkpoints, graceful_stop() as stop:
        found = checkpoints.restore(state)
        if found is not None:
            first, state = found.step, found.state
            order.bit_generator.state = found.place["order"]
        started.set()
        began = time.monotonic()
        for step in range(first, steps):
            state, loss = train_step(state, order.permutation(64)[:32])
            if (step + 1) % 3 == 0 or step + 1 == steps or stop.requested:
                checkpoints.save(step + 1, state, score=-float(loss), place={"order": order.bit_generator.state})
            if stop.requested:
                return
        checkpoints.wait()
        seconds = time.monotonic() - began
        while hold:
            time.sleep(1.0)
        best = checkpoints.best(state)
        (folder.parent / f"{folder.name}.json").write_text(json.dumps(
            {"last": digest(state), "best": digest(best.state), "best_step": best.step, "seconds": seconds}))


def newest(folder):
    return max((int(name) for name in os.listdir(folder) if name.isdigit()), default=None) if folder.exists() else None


def main(folder, kills, steps):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTS)
    disturbed = folder / "disturbed"

    def start(name, hold=False):
        started = context.Event()
        process = context.Process(target=run, args=(folder / name, steps, started, hold))
        process.start()
        return process, started

    def finish(name):
        process, _ = start(name)
        process.join(120)
        assert process.exitcode == 0, process.exitcode
        return json.loads((folder / f"{name}.json").read_text())

    undisturbed = finish("undisturbed")
    process, started = start("disturbed")
    assert started.wait(60)
    process.terminate()
    process.terminate()
    process.join(60)
    stopped = {"exitcode": process.exitcode, "newest": newest(disturbed)}
    draws, reached = random.Random(kills), []
    for _ in range(kills):
        process, started = start("disturbed", hold=True)
        if draws.random() < 0.2:
            time.sleep(draws.uniform(0.0, 0.5))  # while it starts, or reads
        else:
            assert started.wait(60)
            time.sleep(draws.uniform(0.0, 2.5 * undisturbed["seconds"] / kills))
        process.kill()
        process.join(60)
        assert process.exitcode == -9, process.exitcode
        reached.append(newest(disturbed))
    print(json.dumps({"undisturbed": undisturbed, "disturbed": finish("disturbed"), "stopped": stopped,
                      "reached": reached}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
