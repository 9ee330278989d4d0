"""Supplies what Python lacks in a browser, so that the rest of minirl works there unchanged.

Pyodide is Python compiled for the browser. It can start neither processes nor threads, and it has
no clock of one thread's CPU time. The module `_multiprocessing`, which starts processes, is missing
there; `IN_BROWSER` is true exactly if it is. Gymnasium imports `_multiprocessing`, even where it
starts no process, so import minirl before Gymnasium. Elsewhere this module changes nothing.
"""

import sys
import time
import types

try:
    import _multiprocessing  # type: ignore[import-not-found]  # noqa: F401
except ImportError:
    IN_BROWSER = True
else:
    IN_BROWSER = False

DEFAULT_WORKERS = 1 if IN_BROWSER else 2


class SemLock:
    """A semaphore that cannot be made: tqdm then works without one."""

    SEM_VALUE_MAX = 1

    def __init__(self, *arguments: object) -> None:
        raise OSError("there are no semaphores between processes in a browser")


def supply_missing() -> None:
    """Supply a module `_multiprocessing` and `time.thread_time`; stop tqdm's monitor thread."""
    module = types.ModuleType("_multiprocessing")
    # `multiprocessing.synchronize` also imports the name `sem_unlink`.
    vars(module).update(SemLock=SemLock, sem_unlink=None)
    sys.modules["_multiprocessing"] = module
    if not hasattr(time, "thread_time"):
        time.thread_time = time.process_time  # there is only one thread
    from tqdm import tqdm

    tqdm.monitor_interval = 0


if IN_BROWSER:
    supply_missing()
