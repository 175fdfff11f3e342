"""Several processes, on one host or many, as one run, connected by JAX's own runtime."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

COORDINATOR, PROCESSES, PROCESS = "HIRE_JAX_COORDINATOR", "HIRE_JAX_PROCESSES", "HIRE_JAX_PROCESS"
# What launchers that jax.distributed.initialize knows leave in each of several processes: srun (not the script of a
# batch job, which runs alone), mpirun, and a TPU pod.
_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
_TPU_HOSTS = "TPU_WORKER_HOSTNAMES"


class Hosts(NamedTuple):
    """This process among those of its run."""

    process: int
    processes: int
    devices: int  # of all processes
    local_devices: int


def connect(*, coordinator: str | None = None, processes: int | None = None, process: int | None = None,
            local_devices: Sequence[int] | None = None, timeout: float = 300.0, heartbeat: float = 100.0) -> Hosts:
    """Connects this process with the others of its run, if there are any; before anything else of JAX is used.

    What is not given is taken from the environment: HIRE_JAX_COORDINATOR, HIRE_JAX_PROCESSES and HIRE_JAX_PROCESS, or
    else what a TPU pod, SLURM (srun) or Open MPI (mpirun) tell their processes. Where none of them says that there are
    several, this process runs alone.

    Args:
      coordinator: "address:port" of process 0, which all can reach.
      processes: how many there are.
      process: which one this is, from 0.
      local_devices: which of the devices that this process sees are its own. None takes all of them; under SLURM with
        several tasks a node that see the same GPUs, the one of the task's number there.
      timeout: seconds in which all must have come, and in which all must have ended once one has. JAX ends a process
        that waited longer.
      heartbeat: seconds without a sign of life after which a process counts as lost; JAX then ends all others.

    Returns:
      what this process is.

    Raises:
      ValueError: some of the three are known and others not, or they contradict each other; names them.
      RuntimeError: JAX has been used before.
    """
    given = {"coordinator": coordinator or os.environ.get(COORDINATOR), "processes": _number(processes, PROCESSES),
             "process": _number(process, PROCESS)}
    known = [name for name, value in given.items() if value is not None]
    settings: dict[str, Any] = {"initialization_timeout": int(timeout), "shutdown_timeout_seconds": int(timeout),
                                "heartbeat_timeout_seconds": int(heartbeat), "local_device_ids": local_devices}
    if known:
        if missing := [name for name in given if name not in known]:
            raise ValueError(f"{known[0]} is given, but not {' and '.join(missing)}: expected all three, as arguments "
                             f"or as {COORDINATOR}, {PROCESSES} and {PROCESS}")
        count, own = int(given["processes"]), int(given["process"])  # type: ignore[arg-type]  # none is missing
        if count < 1 or not 0 <= own < count:
            raise ValueError(f"process must be 0 to processes - 1, got process {own} of {count}")
        if ":" not in str(given["coordinator"]):
            raise ValueError(f"coordinator must be 'address:port', got {given['coordinator']!r}")
        if count > 1:
            # What is said counts: JAX would ask a launcher, if there is one, for what is not.
            jax.distributed.initialize(str(given["coordinator"]), count, own, **settings,
                                       cluster_detection_method="deactivate")
    elif launched():
        if local_devices is None:
            settings["local_device_ids"] = _visible_gpus()
        jax.distributed.initialize(**settings)
    return Hosts(jax.process_index(), jax.process_count(), jax.device_count(), jax.local_device_count())


def launched() -> bool:
    """Whether a launcher that JAX knows has started several processes."""
    counts = [int(value) for name in _COUNTS if (value := os.environ.get(name, "")).isdigit()]
    return max(counts, default=1) > 1 or "," in os.environ.get(_TPU_HOSTS, "")


def _visible_gpus() -> list[int] | None:
    """All GPUs that SLURM shows this task, where they are its own; JAX by itself takes the one of its number.

    They are its own where it is the only task of its node, or sees but one. None where JAX's rule is right.
    """
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")  # such as "1(x2)" or "4,3"
    alone = bool(tasks) and {part.split("(")[0] for part in tasks.split(",")} == {"1"}
    return list(range(len(visible))) if visible and (alone or len(visible) == 1) else None


def _number(given: int | None, variable: str) -> int | None:
    value = os.environ.get(variable)
    if given is not None or value is None:
        return given
    if not value.isdigit():
        raise ValueError(f"{variable} must be a number, got {value!r}")
    return int(value)
