"""Keeps glibc from returning large temporaries to the system at every call.

An allocation over 32 MiB is mapped afresh and returned when freed; its pages are then zeroed and faulted in at
every step, which on a CPU can cost more than the arithmetic (docs/performance.md). Linux with glibc only, and only in
part: a thread of XLA's has a heap of 64 MiB, so what is larger is mapped afresh there whatever is set here.
"""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def use_heap_for_large_arrays() -> bool:
    """Lets allocations up to 1 GiB come from the heap, which keeps its pages; returns whether it took effect.

    The process then holds on to its peak memory. Anywhere but on Linux with glibc nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 1 << 30) and mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1))
