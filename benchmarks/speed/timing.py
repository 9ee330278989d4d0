"""CPU time of functions, and the machine on which it was measured."""

import platform
import time
from collections.abc import Callable

import numpy as np

Work = Callable[[], object]


def cpu_seconds(work: Work, calls: int = 1) -> float:
    """CPU seconds per call, of all threads of this process."""
    began = time.process_time()
    for _ in range(calls):
        work()
    return (time.process_time() - began) / calls


def repeated(work: Work, repeats: int) -> list[float]:
    """CPU seconds of each of `repeats` calls, after one that is not counted."""
    work()
    return [cpu_seconds(work) for _ in range(repeats)]


def machine() -> str:
    """Processor and versions, as the last line below a table."""
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}"
    return f"{platform.machine()}, {versions}"
