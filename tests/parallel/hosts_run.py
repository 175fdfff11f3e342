"""One process of a run over hosts, for test_hosts: `python hosts_run.py PORT PROCESS PROCESSES FOLDER WORD`.

Each has four fake devices of eight. Process 0 writes the parameters. WORD is the form of the program, jit or pmap, or
hire, with a teacher, or what process 1 does in its second epoch: die, raise, or be sent SIGTERM (term).
"""

import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":  # before JAX is imported; the test imports this file too
    os.environ |= {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}

import jax
import numpy as np

from hire_jax import Objective, checkpoint, parallel
from hire_jax.data import synthetic_hetero
from hire_jax.models import RGCN
from hire_jax.sampling import BatchSource, HostGraph
from hire_jax.teachers import TeacherRows

MODEL = RGCN(target="item", num_classes=3, hidden=8, dropout=0.3)
HIRE = Objective(soft_target_kl=1.0, type_pair_correlation=0.5, temperature=2.0)


def planted():
    """The dataset that every process makes for itself."""
    return synthetic_hetero({"item": 90, "user": 60, "tag": 12}, feature_density=1, feature_width=6, mean_degree=2.0,
                            featureless=(), power_law=2.5, seed=3)


def trained(teacher: Path, hire: bool = False, **settings):
    """Two epochs of eleven batches: the second step of eight devices leaves five without one. Two layers and all terms
    with `hire`, else one layer alone."""
    dataset = planted()
    host = HostGraph.from_graph(dataset.graph)
    common = {"target": "item", "fanouts": [3, 2], "labels": dataset.labels}
    taught = {"teacher": TeacherRows(teacher), "uniform": {"item": 6, "user": 4, "tag": 3}} if hire else {}
    source = BatchSource(host, nodes=np.arange(43), batch_size=4, **taught, **common)
    validation = BatchSource(host, nodes=np.arange(43, 90), batch_size=4, shuffle=False, **common)
    return parallel.fit(MODEL.copy(layers=2 if hire else 1), source, validation=validation,
                        objective=HIRE if hire else None, epochs=2, learning_rate=0.05, **settings)


def main(port: str, process: str, processes: str, folder: Path, word: str) -> None:
    """What the command line says."""
    hosts = parallel.connect(coordinator=f"127.0.0.1:{port}", processes=int(processes), process=int(process),
                             timeout=60, heartbeat=10)
    assert hosts == (int(process), int(processes), 4 * int(processes), 4)

    def progress(epoch, step, values):
        if process == "1" and epoch == 1 and step == 1:
            if word == "die":
                os._exit(9)
            if word == "raise":
                raise ValueError("as asked")
            if word == "term":
                os.kill(os.getpid(), signal.SIGTERM)

    with checkpoint.Checkpoints(folder / "checkpoints", config={}) as kept:
        result = trained(folder / "teacher", checkpoints=kept, every=1, progress=progress,
                         hire=word == "hire", form="pmap" if word == "pmap" else "jit")
    if hosts.process == 0:
        leaves = {str(number): leaf for number, leaf in enumerate(jax.tree.leaves(result.params))}
        np.savez(folder / "params.npz", **leaves, val_loss=result.history["val_loss"])


if __name__ == "__main__":
    main(*sys.argv[1:4], Path(sys.argv[4]), sys.argv[5])
