"""Independent jobs: function(item) for many items, in this process, in a pool or on any executor.

An item is anything that can be pickled; `str(item)` is its name in messages. An exception of the
function is raised here too, with a note that names the item. An exception of the executor itself
means that a result was lost, and becomes a RuntimeError.
"""

import contextlib
import os
import pickle
import sys
import threading
import traceback
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from typing import Any, Generic, TypeVar

from tqdm import tqdm

from minirl.browser import IN_BROWSER
from minirl.support.interrupts import hold_interrupts

Item = TypeVar("Item")
Result = TypeVar("Result")
Futures = dict[Future[Any], Item]

IMPORTABLE = (
    "classes and functions for worker processes must live in a module (a .py file) that they can "
    "import, not in a notebook; or pass workers=1"
)
STORED = "call again: finished runs that were stored are not repeated"


class Failure:
    """An error of a job, returned as a value, so that raised errors are those of the executor."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getstate__(self) -> tuple[bytes, str]:
        # Pickling is tried here, because an error that can't be pickled would look like one of the
        # executor.
        pickler = sys.modules.get("cloudpickle", pickle)  # Dask's; it can send classes of a script
        try:
            data = pickler.dumps(self.error)
            pickle.loads(data)
        except Exception:
            data = pickle.dumps(RuntimeError(f"{type(self.error).__name__}: {self.error}"))
        return data, "".join(traceback.format_exception(self.error))

    def __setstate__(self, state: tuple[bytes, str]) -> None:
        self.error = pickle.loads(state[0])
        self.error.__cause__ = RuntimeError(f"in a worker:\n{state[1]}")


class Success(Generic[Result]):
    """The result of a job."""

    def __init__(self, result: Result) -> None:
        self.result = result


def attempt(
    function: Callable[[Item], Result], item: Item, call: str = ""
) -> Success[Result] | Failure:
    """The outcome of function(item).

    `call` is different in each call of `compute`. Dask identifies a job by its function and its
    arguments, and would return the stored error of an earlier job with the same ones.
    """
    try:
        return Success(function(item))
    except Exception as error:
        return Failure(error)


def attempt_pickled(data: bytes) -> Success[Any] | Failure:
    """`attempt` in a worker process, for a pickled function and item.

    They are unpickled here because an exception in a pool's own unpickling ends the process without
    a message.
    """
    try:
        function, item = pickle.loads(data)
    except (AttributeError, ImportError) as error:
        return Failure(ValueError(f"not found in a worker process: {error}; {IMPORTABLE}"))
    return attempt(function, item)


def compute(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int = 1,
    executor: Executor | None = None,
) -> Generator[tuple[Item, Result]]:
    """Each item with function(item), in the order in which they finish.

    To stop early, close the generator (`contextlib.closing`). Jobs that have not begun are then
    cancelled, and worker processes that were started here have ended.

    Parameters
    ----------
    workers : int
        Number of worker processes, which are started here; 1 means this process.
    executor : concurrent.futures.Executor, optional
        Computes the jobs instead. It is never shut down here.

    Raises
    ------
    ValueError
        If a function or an item cannot be sent to a worker process, or if there are no processes.
    RuntimeError
        If a worker process died or the executor lost a result.
    """
    if executor is not None:
        yield from _computed_by(executor, function, items)
    elif workers == 1 or len(items) <= 1:
        for item in items:
            yield item, _result(item, attempt(function, item))
    else:
        yield from _computed_in_pool(function, items, workers)


def _computed_by(
    executor: Executor, function: Callable[[Item], Result], items: Sequence[Item]
) -> Iterator[tuple[Item, Result]]:
    processes = sys.modules.get("concurrent.futures.process")  # absent in a browser
    if processes and isinstance(executor, processes.ProcessPoolExecutor):
        futures = _submit(executor, _pickled(function, items), items)
    else:
        call = uuid.uuid4().hex
        futures = {executor.submit(attempt, function, item, call): item for item in items}
    try:
        yield from _as_completed(futures)
    finally:
        for future in futures:
            future.cancel()


def _computed_in_pool(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[tuple[Item, Result]]:
    """The results of a process pool that ends with this generator."""
    if IN_BROWSER:
        raise ValueError(f"workers must be 1 in a browser, which has no processes, got {workers}")
    # Imported here: Python in a browser has no processes, but can use the rest of this file.
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    pickled = _pickled(function, items)  # an error here comes before a process is started
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        min(workers, len(items)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_prepare_worker,
    )
    try:
        with hold_interrupts():
            futures = _submit(pool, pickled, items)
        yield from _as_completed(futures)
    except BaseException:
        # Not cancelled first: the pool's thread must find its futures unchanged.
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        # If a worker ended while it sent a result, the pool's thread would wait for the rest of it
        # as long as this process could still write to the same pipe.
        with contextlib.suppress(AttributeError, OSError):
            pool._result_queue._writer.close()  # type: ignore[attr-defined]
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(executor: Executor, pickled: list[bytes], items: Sequence[Item]) -> Futures[Item]:
    return {
        executor.submit(attempt_pickled, data): item
        for data, item in zip(pickled, items, strict=True)
    }


def _pickled(function: Callable[[Item], Result], items: Sequence[Item]) -> list[bytes]:
    """Each item together with the function."""
    pickled = []
    for item in items:
        try:
            pickled.append(pickle.dumps((function, item)))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"{item} can't be sent to a worker process ({error}); {IMPORTABLE}"
            ) from error
    return pickled


def _prepare_worker() -> None:
    """Set up a worker process that ends with its parent, even if the parent is killed."""
    import multiprocessing

    tqdm.set_lock(threading.RLock())  # a killed worker would leak tqdm's own lock, a semaphore
    parent = multiprocessing.parent_process()
    threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(process: Any) -> None:
    """Wait for the end of another process, then end this one."""
    process.join()
    os._exit(1)


def _as_completed(futures: Futures[Item]) -> Iterator[tuple[Item, Any]]:
    for future in as_completed(futures):
        item = futures[future]
        try:
            outcome = future.result()
        except BrokenExecutor as error:
            raise RuntimeError(
                "a worker process died (out of memory, killed, or a script that lacks "
                f'if __name__ == "__main__"); {STORED}'
            ) from error
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            outcome = Failure(error)  # the item can't be pickled: no result was lost
        except Exception as error:
            raise RuntimeError(
                f"{item} was lost with its worker or cluster ({type(error).__name__}); {STORED}"
            ) from error
        yield item, _result(item, outcome)


def _result(item: Item, outcome: Success[Result] | Failure) -> Result:
    """The result, or raise the job's error with a note that names the item."""
    if isinstance(outcome, Failure):
        outcome.error.add_note(f"in {item}")
        raise outcome.error
    return outcome.result
