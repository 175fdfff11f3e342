"""Peak memory of each contender of experiments.bench, ours and PyG's, by one measure; Linux only.

Every contender trains in a process of its own, so that none hides in the memory another has left. That process loads
the dataset, builds and compiles the contender, gives all free memory back to the system, resets the kernel's mark of
the largest resident set, and trains a few epochs. The peak is the sum of two numbers:

  held     bytes of the arrays the training stands on, counted from their sizes: graph, features, labels, parameters,
           and of ours also the optimiser's state and the best parameters
  working  what the largest resident set of the epochs exceeds the one before them by: activations, gradients,
           temporaries, and of PyG also the optimiser's state

Libraries, compiler and the dataset as it was loaded are in neither. "compiled" is XLA's own count for our program, to
hold against the measured peak. On an accelerator the arrays are not in the resident set: there "compiled" is shown.
"""

import ctypes
import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

import hire_jax as hj
from experiments.bench_contenders import OurEpochs, network, with_metapaths
from experiments.console import track, warn

Memory = dict[str, int | None]  # "held", "working", "peak", "compiled": bytes, None where not known

MEANING = ("arrays held, and what the resident set of a process of its own rises by while it trains, without "
           "libraries and compiler")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Job:
    """One contender, as its process is told: the bench's settings and the name in the bench's table."""

    dataset: str
    contender: str
    model: str
    hidden: int
    layers: int
    seeds: int
    epochs: int = 2


def peaks(dataset: str, settings: Any, contenders: Sequence[str], console: Console) -> dict[str, Memory | None]:
    """{contender: its memory}, one process after another; None where one failed, with a warning that says how.

    Args:
      dataset: name for `hire_jax.load_dataset`.
      settings: of the bench.
      contenders: names of the bench's table; one that ends in "seeds" trains `settings.seeds` at once.
      console: for progress.
    """
    results: dict[str, Memory | None] = {}
    with track(len(contenders), f"{dataset}: memory", console=console) as tracker:
        for done, label in enumerate(contenders, 1):
            job = Job(dataset, label, settings.model, settings.hidden, settings.layers,
                      settings.seeds if label.endswith("seeds") else 1)
            process = subprocess.run(
                [sys.executable, "-m", "experiments.bench_memory", json.dumps(dataclasses.asdict(job))],
                cwd=Path(__file__).resolve().parent.parent, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if process.returncode:
                last = (process.stderr.strip().splitlines() or ["no message"])[-1]
                warn(f"memory of {label} is not known: its process ended with {process.returncode}: {last}",
                     console=console)
                results[label] = None
            else:
                results[label] = json.loads(process.stdout.splitlines()[-1])
            tracker.update(done, f"{dataset}: memory of {label}")
    return results


def shown(memory: Memory | None) -> str:
    """The peak in MiB, or "-"."""
    peak = None if memory is None else memory["peak"] or memory["compiled"]
    return "-" if peak is None else f"{peak / 2**20:,.0f}"


def measure(job: Job) -> Memory:
    """Trains the contender in this process, which should do nothing else."""
    dataset = with_metapaths(hj.load_dataset(job.dataset), job)
    model = network(dataset, job)
    compiled = None
    if job.contender.startswith("hire_jax"):
        ours = OurEpochs(dataset, model, seeds=job.seeds, epochs=job.epochs)
        held, compiled = ours.compiled.memory_analysis().argument_size_in_bytes, program_bytes(ours.compiled)
        working = resident_rise(ours) if jax.default_backend() == "cpu" else None
    else:
        from experiments.peers import pyg

        theirs = pyg.Training(pyg.peers(dataset, model)[job.contender], dataset, epochs=job.epochs)
        held, working = theirs.held_bytes(), resident_rise(theirs)
    peak = None if working is None else held + working
    return {"held": held, "working": working, "peak": peak, "compiled": compiled}


def program_bytes(compiled: Any) -> int:
    """Arguments, results that take none of their places, and temporaries of a compiled program, by XLA's analysis."""
    sizes = compiled.memory_analysis()
    return int(sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
               + sizes.temp_size_in_bytes)


def resident_rise(call: Any) -> int | None:
    """By how many bytes the largest resident set during `call` exceeds the one before it; None if not on Linux."""
    if not sys.platform.startswith("linux"):
        return None
    try:  # what was freed but kept would hide the first of what the call takes
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):  # another C library
        pass
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the mark of the largest resident set, back to the present one
    except OSError:  # a container that forbids it
        return None
    before = resident_bytes("VmRSS")
    call()
    return max(resident_bytes("VmHWM") - before, 0)


def resident_bytes(field: str) -> int:
    """This process's resident set now ("VmRSS") or at its largest ("VmHWM"), on Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    print(json.dumps(measure(Job(**json.loads(sys.argv[1])))))
