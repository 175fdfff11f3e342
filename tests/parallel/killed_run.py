"""A run for the test of kills: `python killed_run.py FOLDER` trains with checkpoints and writes FOLDER/params.npz."""

import sys
import time
from pathlib import Path

import jax
import numpy as np

from hire_jax import checkpoint, parallel
from hire_jax.data import synthetic_hetero
from hire_jax.models import RGCN
from hire_jax.sampling import BatchSource, HostGraph

EPOCHS = 12


def main(folder: Path) -> None:
    """Eleven steps an epoch, a checkpoint after every third; a step takes long enough for kills to come in between."""
    dataset = synthetic_hetero({"item": 90, "user": 60, "tag": 12}, feature_density=1, feature_width=6, mean_degree=2.0,
                               featureless=("tag",), power_law=2.5, seed=3)
    host = HostGraph.from_graph(dataset.graph)
    common = {"target": "item", "fanouts": [3, 2], "labels": dataset.labels}
    source = BatchSource(host, nodes=np.arange(43), batch_size=4, **common)
    validation = BatchSource(host, nodes=np.arange(43, 90), batch_size=16, shuffle=False, **common)
    model = RGCN(target="item", num_classes=3, hidden=8, layers=2, dropout=0.3)
    with checkpoint.Checkpoints(folder / "checkpoints", config={"epochs": EPOCHS}) as kept:
        result = parallel.fit(model, source, validation=validation, epochs=EPOCHS, learning_rate=0.02, workers=2,
                              checkpoints=kept, every=3, progress=lambda *_: time.sleep(0.05))
    leaves = {str(number): leaf for number, leaf in enumerate(jax.tree.leaves(result.params))}
    partial = folder / "partial.npz"
    np.savez(partial, **leaves, **result.history)
    partial.rename(folder / "params.npz")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
