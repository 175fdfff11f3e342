"""Programs that take less to compile than to be made fast: tests of scripts ask what they do, not how fast.

Whether compiled numbers are right is asked elsewhere, of losses, models and the trainer.
"""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """XLA without its optimisations, here and in the processes that a test starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        jax.config.update("jax_disable_most_optimizations", True)
        yield
    jax.config.update("jax_disable_most_optimizations", False)
