"""Finished runs in a CSV file and in a table: what the long scripts of this folder share.

A script lists its runs, skips those that the file holds, and appends a line as each one finishes.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def read(path: Path) -> list[dict[str, str]]:
    """The lines of a file by column; none if there is no file yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    """Add lines to a file, under its head if it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if fresh:
            writer.writerow(columns)
        writer.writerows(lines)


def markdown(head: Sequence[str], lines: Iterable[Sequence[object]], rule: str = "---") -> str:
    """A table; `rule` is "---:" for columns of numbers."""
    cells = [head, [rule] * len(head), *lines]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in cells)


def finished(
    run: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[Result]:
    """run(item) of each item, as they finish, in so many processes, with a progress bar.

    An error, or Ctrl-C, is raised without beginning another run.
    """
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(run, item) for item in items]
        try:
            for future in tqdm(as_completed(futures), total=len(items), unit="run"):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
