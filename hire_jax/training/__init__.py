"""The compiled training loop: a whole run of many seeds is one program.

Epochs run inside `lax.scan` in chunks; between chunks the host moves a progress bar, looks for losses that
are not finite, and stops when every seed has run out of patience. Nothing in a seed's numbers depends on the
chunk length or on which other seeds run beside it.
"""

from hire_jax.training.checks import LabelledGraph, TrainingError
from hire_jax.training.epoch import Monitor, Params, named_key
from hire_jax.training.fit import fit
from hire_jax.training.leaks import LeakError, check_leaks
from hire_jax.training.program import Program, compile_fit
from hire_jax.training.result import FitResult, predict
from hire_jax.training.stages import lift, slow_backbone

__all__ = [
    "FitResult",
    "LabelledGraph",
    "LeakError",
    "Monitor",
    "Params",
    "Program",
    "TrainingError",
    "check_leaks",
    "compile_fit",
    "fit",
    "lift",
    "named_key",
    "predict",
    "slow_backbone",
]
