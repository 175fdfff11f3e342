"""Runs that survive: states on the disk that are whole or are not there."""

from hire_jax.checkpoint.checkpoints import Checkpoints, Restored
from hire_jax.checkpoint.errors import CheckpointError, CheckpointWarning
from hire_jax.checkpoint.stop import Stop, graceful_stop

__all__ = ["CheckpointError", "CheckpointWarning", "Checkpoints", "Restored", "Stop", "graceful_stop"]
