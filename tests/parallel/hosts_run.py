"""One process of a run over hosts, for test_hosts: `python hosts_run.py PORT PROCESS PROCESSES FOLDER [die]`.

Each has four fake devices of eight. Process 0 writes the parameters; `die` ends process 1 within its second epoch.
"""

import os
import sys
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np

from hire_jax import Objective, checkpoint, parallel
from hire_jax.data import synthetic_hetero
from hire_jax.models import RGCN
from hire_jax.sampling import BatchSource, HostGraph
from hire_jax.teachers import TeacherRows

MODEL = RGCN(target="item", num_classes=3, hidden=8, layers=2, dropout=0.3)
HIRE = Objective(soft_target_kl=1.0, type_pair_correlation=0.5, temperature=2.0)


def planted():
    """The dataset that every process makes for itself."""
    return synthetic_hetero({"item": 90, "user": 60, "tag": 12}, feature_density=1, feature_width=6, mean_degree=2.0,
                            featureless=(), power_law=2.5, seed=3)


def trained(teacher: Path, **settings):
    """Two epochs of eleven batches: the second step of eight devices leaves five without one."""
    dataset = planted()
    host = HostGraph.from_graph(dataset.graph)
    common = {"target": "item", "fanouts": [3, 2], "labels": dataset.labels}
    source = BatchSource(host, nodes=np.arange(43), batch_size=4, teacher=TeacherRows(teacher),
                         uniform={"item": 6, "user": 4, "tag": 3}, **common)
    validation = BatchSource(host, nodes=np.arange(43, 90), batch_size=4, shuffle=False, **common)
    return parallel.fit(MODEL, source, validation=validation, objective=HIRE, epochs=2, learning_rate=0.05, **settings)


def main(port: str, process: str, processes: str, folder: Path, die: bool) -> None:
    """What the command line says."""
    hosts = parallel.connect(coordinator=f"127.0.0.1:{port}", processes=int(processes), process=int(process),
                             timeout=60, heartbeat=10)
    assert hosts == (int(process), int(processes), 4 * int(processes), 4)

    def progress(epoch, step, values):
        if die and process == "1" and epoch == 1:
            os._exit(9)

    with checkpoint.Checkpoints(folder / "checkpoints", config={}) as kept:
        result = trained(folder / "teacher", checkpoints=kept, every=1, progress=progress)
    if hosts.process == 0:
        leaves = {str(number): leaf for number, leaf in enumerate(jax.tree.leaves(result.params))}
        np.savez(folder / "params.npz", **leaves, val_loss=result.history["val_loss"])


if __name__ == "__main__":
    main(*sys.argv[1:4], Path(sys.argv[4]), "die" in sys.argv)
