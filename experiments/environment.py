"""Where a result comes from: versions, machine, and the state of the code."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """Where a result comes from: versions, device, platform, git commit, and whether the checkout is dirty.

    git_commit is "unknown" and git_dirty None outside a checkout of this project. Stored results do not make
    a checkout dirty. Starts JAX's backend.
    """
    import jax  # both here, because reading a store needs no JAX and --help should not wait for it

    import hire_jax

    names = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy")
    commit = _git("rev-parse", "HEAD") if _git("ls-files", "--error-unmatch", __file__) else None
    code = ("hire_jax", "experiments", ":(exclude)experiments/results")
    changes = None if commit is None else _git("status", "--porcelain", "--", *code)
    return {
        **{name: metadata.version(name) for name in names},
        "hire_jax": hire_jax.__version__,  # of the code that runs: an installed copy may be another
        "python": platform.python_version(),
        "platform": platform.platform(),
        "backend": jax.default_backend(),
        "device_kind": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
        "cpu_count": os.cpu_count(),
        "git_commit": commit or "unknown",
        "git_dirty": None if changes is None else changes != "",
    }


def _git(*arguments: str) -> str | None:
    """Output of a git command in this checkout; None without git, without a checkout, or on failure."""
    root = Path(__file__).resolve().parent.parent
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
