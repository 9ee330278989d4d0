"""How a run uses the machine: one core, and the memory of freed arrays is reused."""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from minirl.browser import IN_BROWSER

if not IN_BROWSER:  # where NumPy has one thread, and threadpoolctl would warn
    from threadpoolctl import threadpool_limits

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in <malloc.h>
KEPT_BYTES = 30 * 2**20  # glibc takes at most 32 MiB

_one_run = threading.RLock()


@contextmanager
def one_core() -> Iterator[None]:
    """Use one BLAS thread inside the block, and reuse the memory of freed arrays from then on.

    The last bits of a matrix product depend on the number of BLAS threads, and small products are
    faster with one. The limit applies to the whole process. The first Python thread to leave the
    block would end the limit for all others, whose results would then depend on timing. Therefore
    only one Python thread may be inside.

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
        with nullcontext() if IN_BROWSER else threadpool_limits(1):
            yield
    finally:
        _one_run.release()


def keep_freed_memory() -> None:
    """Make glibc reuse the memory of freed arrays; with another C library, do nothing.

    By default glibc returns the memory of large arrays to the system. The pages of the next arrays
    then take as long as the arithmetic: PPO on a token table takes 1.5 times as long. Dask starts
    its workers with a variable (`MALLOC_TRIM_THRESHOLD_`) that makes glibc return even more memory,
    and all training took 1.3 times as long there. This function overrides the variable.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # raised on other systems
        return
    mallopt(MMAP_THRESHOLD, KEPT_BYTES)
    mallopt(TRIM_THRESHOLD, 2 * KEPT_BYTES)
