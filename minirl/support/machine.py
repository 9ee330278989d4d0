"""How a run uses the machine: one core, and memory that is kept."""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in <malloc.h>
KEPT_BYTES = 30 * 2**20  # glibc takes at most 32 MiB

_one_run = threading.RLock()


@contextmanager
def one_core() -> Iterator[None]:
    """One BLAS thread inside the block; from then on, the process keeps the memory of freed arrays.

    The last bits of a matrix product depend on the number of BLAS threads, and small products are
    faster on one. The limit holds for the whole process, and the first Python thread that leaves
    would lift it for the others. Their results would then depend on timing, so that a second
    Python thread is refused.

    Raises
    ------
    RuntimeError
        If another Python thread is inside.
    """
    if not _one_run.acquire(blocking=False):
        raise RuntimeError(
            "another thread of this process is training or evaluating, and the results would "
            "depend on timing; use processes instead of threads, e.g. compare(..., workers=2) or "
            "Dask workers with one thread each"
        )
    try:
        keep_freed_memory()
        with threadpool_limits(1):
            yield
    finally:
        _one_run.release()


def keep_freed_memory() -> None:
    """Make glibc keep freed arrays for the next ones; with another C library, do nothing.

    By itself it hands large ones back to the system, and fresh pages for the next ones cost as much
    as the arithmetic: PPO on a token table takes 1.5 times as long. Dask starts its workers with a
    variable (MALLOC_TRIM_THRESHOLD_) that asks for it, and all training took 1.3 times as long
    there; this prevails over it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # what other systems raise
        return
    mallopt(MMAP_THRESHOLD, KEPT_BYTES)
    mallopt(TRIM_THRESHOLD, 2 * KEPT_BYTES)
