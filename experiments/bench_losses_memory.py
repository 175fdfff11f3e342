"""Peak memory of losses at growing numbers of rows, in a process of its own; used by experiments.bench_losses.

The peak is what the largest resident set of one call of value and gradient exceeds the one before it by: gradients and
temporaries, without the inputs, which are there already, and without interpreter, libraries and compiler. "compiled" is
XLA's own count of the same for our program; on an accelerator it is the only one. Elsewhere our peak is the larger of
the two: pages that become free during the call take the place of new ones, and hide them from the resident set.
"resident" is the largest resident set of the whole process from the call before on: inputs, libraries, compilation and
the call.
"""

import dataclasses
import gc
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

from experiments.bench_losses_cases import CASES, compiled, inputs, refusal
from experiments.bench_memory import program_bytes, resident_bytes, resident_rise

Form = Literal["ours", "sample", "torch"]
Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Job:
    """One form of one loss, as its process is told."""

    loss: str
    form: Form
    sizes: Sequence[int]
    """Numbers of rows, increasing."""
    sample: int | None = None
    seconds: float = math.inf
    """No call that would take longer, by the growth of those before it."""
    bytes_limit: float = math.inf
    """No call that would need more memory beyond the inputs, by XLA's plan or by the growth of calls before it."""


def measure_apart(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """`measure` of each job, one after another in one process other than this.

    Raises:
      RuntimeError: the process failed; with the end of what it said.
    """
    told = json.dumps([dataclasses.asdict(job) for job in jobs])
    process = subprocess.run(
        [sys.executable, "-m", "experiments.bench_losses_memory", told],
        cwd=Path(__file__).resolve().parent.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if process.returncode:
        raise RuntimeError(f"{[job.loss for job in jobs]} ended with {process.returncode}: {process.stderr[-2000:]}")
    return [json.loads(line) for line in process.stdout.splitlines()]


def measure(job: Job) -> dict[str, Any]:
    """{"rows": one {"rows", "seconds", "memory", "compiled", "resident"} a size, "stopped": why it went no further}.

    "seconds" are those of the one call, its page faults included. "stopped" is None or {"rows", "why", "message"},
    `why` one of "refused" (the loss asks for `sample=`), "time" and "memory".
    """
    rows: list[dict[str, Any]] = []

    def ended(size: int, why: str, message: str) -> dict[str, Any]:
        return {"rows": rows, "stopped": {"rows": size, "why": why, "message": message}}

    power = 1
    if job.form == "torch":
        from experiments.peers import torch_losses

        power = torch_losses.POWER.get(job.loss, 1)
    for size in job.sizes:
        if job.form == "ours" and (message := refusal(job.loss, size)) is not None:
            return ended(size, "refused", message)
        if job.form == "torch" and (memory := expected(rows, size, "memory", power)) > job.bytes_limit:
            most = reaches(rows, job.bytes_limit, power)
            return ended(size, "memory", f"some {memory / 2**30:.1f} GiB expected; {most:,} rows reach the limit")
        if (seconds := expected(rows, size, "seconds")) > job.seconds:
            return ended(size, "time", f"some {seconds:.0f} s expected")
        planned = None
        if job.form == "torch":
            call = torch_call(job.loss, size)
        else:
            program, arguments = compiled(job.loss, size, inputs(job.loss, size), job.sample)
            planned = program_bytes(program) - program.memory_analysis().argument_size_in_bytes
            if planned > job.bytes_limit:
                return ended(size, "memory", f"{planned / 2**30:.1f} GiB planned")
            call = _timed(partial(_run, program, arguments))
        seconds, rise, resident = _one_call(call)
        known = [count for count in (rise, planned) if count is not None]
        rows.append({"rows": size, "seconds": seconds, "memory": max(known, default=None),
                     "compiled": planned, "resident": resident})  # fmt: skip
    return {"rows": rows, "stopped": None}


def _one_call(call: Callable[[], float]) -> tuple[float, int | None, int | None]:
    """Seconds, the rise of the resident set, and its largest size; the last two None where they cannot be had."""
    taken: list[float] = []
    if jax.default_backend() != "cpu" or not sys.platform.startswith("linux"):
        return call(), None, None
    before = resident_bytes("VmHWM")
    _free_what_is_done_with()
    rise = resident_rise(lambda: taken.append(call()))
    if rise is None:  # a container that forbids to reset the kernel's mark
        return call(), None, None
    return taken[0], rise, max(before, resident_bytes("VmHWM"))


def _free_what_is_done_with(at_most: float = 5.0) -> None:
    """Takes from the resident set what nobody holds any more: otherwise that goes during the call to be measured.

    JAX holds the NumPy arrays that it copied to the device until its next call or garbage collection, and XLA frees
    buffers, those of the size before, in threads of its own. So this waits until no more is freed, for `at_most`
    seconds.
    """
    end, steady, before = time.perf_counter() + at_most, 0, resident_bytes("VmRSS")
    while steady < 3 and time.perf_counter() < end:
        gc.collect()
        jax.block_until_ready(jnp.zeros(()) + 1)
        time.sleep(0.05)
        now = resident_bytes("VmRSS")
        steady = steady + 1 if now > before - 2**20 else 0
        before = now


def torch_call(name: str, rows: int) -> Callable[[], float]:
    """Seconds of torch's value and gradients at our inputs."""
    from experiments.peers import torch_losses

    arguments, leaves = torch_losses.tensors(inputs(name, rows), CASES[name].learned)
    return _timed(lambda: torch_losses.value_and_gradients(name, arguments, leaves))


def our_call(name: str, rows: int, sample: int | None) -> Callable[[], float]:
    """Seconds of our value and gradient, compiled before."""
    program, arguments = compiled(name, rows, inputs(name, rows), sample)
    return _timed(partial(_run, program, arguments))


def _run(program: Callable[..., Any], arguments: Any) -> None:
    jax.block_until_ready(program(*arguments))


def _timed(call: Callable[[], Any]) -> Callable[[], float]:
    def timed() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return timed


def local_slope(rows: Sequence[Row], field: str, at_least: float = 1.0) -> float:
    """Exponent between the last two sizes, from `at_least` to 3; `at_least` where there are no two numbers."""
    known = [(row["rows"], row[field]) for row in rows if row[field]]
    if len(known) < 2:
        return at_least
    (n, a), (m, b) = known[-2:]
    return min(max(math.log(b / a) / math.log(m / n), at_least), 3.0)


def expected(rows: Sequence[Row], size: int, field: str, at_least: float = 1.0) -> float:
    """The field at `size` rows if it goes on as between the last two sizes; 0 where nothing is known."""
    if not rows:
        return 0.0
    return (rows[-1][field] or 0) * (size / rows[-1]["rows"]) ** local_slope(rows, field, at_least)


def reaches(rows: Sequence[Row], limit: float, at_least: float = 1.0) -> int:
    """The number of rows, to two digits, at which memory reaches `limit` if it goes on so."""
    count = rows[-1]["rows"] * (limit / rows[-1]["memory"]) ** (1 / local_slope(rows, "memory", at_least))
    return int(float(f"{count:.1e}"))


def warm_up(with_torch: bool) -> None:
    """Starts thread pools and loads what the first operations load, which no loss is to answer for."""
    jax.block_until_ready(jax.jit(jax.grad(lambda x: jnp.sum(jnp.exp(x @ x))))(jnp.ones((512, 512))))
    if with_torch:
        torch_call("global_structure", 512)()


if __name__ == "__main__":
    queue = [Job(**job) for job in json.loads(sys.argv[1])]
    warm_up(any(job.form == "torch" for job in queue))
    for each in queue:
        print(json.dumps(measure(each)), flush=True)
