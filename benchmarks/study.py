"""Long experiments that keep every finished run in a CSV file.

A script lists the runs it wants. `Study.complete` computes those that the file does not contain and
appends a row as soon as a run has finished, so an interrupted script continues where it stopped.
Finished runs are not told apart by the version of the package: delete the file after a change. The
functions below turn rows into the tables of the documentation.
"""

import argparse
import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from minirl.experiments.statistics import bootstrap_interval, interquartile_mean
from minirl.support.serialization import write_text

RESULTS = Path(__file__).parent / "results"
POLICIES = Path(__file__).parent / "policies"

Row = dict[str, str]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Study:
    """Runs that a CSV file keeps, one row per run.

    Parameters
    ----------
    path : Path
    key : tuple of str
        Columns that identify a run. An item of work is a tuple of their values.
    values : tuple of str
        Columns that a run measures.
    """

    path: Path
    key: tuple[str, ...]
    values: tuple[str, ...]

    def rows(self) -> list[Row]:
        """The rows of the file; none if there is no file yet."""
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def append(self, rows: Iterable[Sequence[object]]) -> None:
        """Add rows to the file, and the header if the file is new."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if is_new:
                writer.writerow([*self.key, *self.values])
            writer.writerows(rows)

    def missing(self, items: Iterable[Item]) -> list[Item]:
        """The items whose key no row contains."""
        finished = {tuple(row[name] for name in self.key) for row in self.rows()}
        return [item for item in items if tuple(map(str, item)) not in finished]  # type: ignore[call-overload]

    def complete(
        self, run: Callable[[Item], Sequence[object]], items: Iterable[Item], workers: int
    ) -> None:
        """Compute run(item), the values of a row, for each missing item, and append the rows."""
        for item, values in computed(run, self.missing(items), workers):
            self.append([[*item, *values]])  # type: ignore[misc]


def computed(
    run: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[tuple[Item, Result]]:
    """Each item with run(item), in the order in which they finish, in `workers` processes.

    An error, or Ctrl-C, is raised without beginning another run.
    """
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(run, item): item for item in items}
        try:
            for future in tqdm(as_completed(futures), total=len(items), unit="run"):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def command_line(
    description: str | None,
    *,
    complete: Callable[[argparse.Namespace], None],
    table: Callable[[], str],
    draw: Callable[[Path], None] | None = None,
    seeds: int | None = None,
) -> None:
    """The command line of a script: compute the missing runs, then print the tables.

    Parameters
    ----------
    description : str
        The script's docstring, whose first line is shown.
    complete : callable
        Computes the missing runs, given the parsed arguments `workers` and, with a default,
        `seeds`.
    table : callable
        Returns the tables. With --table nothing is computed.
    draw : callable, optional
        Draws the figure into a file. With --figure FILE nothing is computed or printed.
    seeds : int, optional
        Default number of seeds; None if the script does not let one choose it.
    """
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    if seeds is not None:
        parser.add_argument("--seeds", type=int, default=seeds, help="number of seeds")
    parser.add_argument("--workers", type=int, default=1, help="number of processes")
    parser.add_argument("--table", action="store_true", help="print the tables, compute nothing")
    if draw:
        parser.add_argument("--figure", type=Path, help="draw this file, compute nothing")
    arguments = parser.parse_args()
    if draw and arguments.figure:
        draw(arguments.figure)
        return
    if not arguments.table:
        complete(arguments)
    print(table())


def write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a whole CSV file at once."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text.getvalue())


def cell(value: float, form: str = ".6g") -> str:
    """A number as the text of a cell; empty for NaN."""
    return "" if math.isnan(value) else f"{value:{form}}"


def numbers(rows: Iterable[Row], column: str) -> list[float]:
    """The numbers of a column, without its empty cells."""
    return [float(row[column]) for row in rows if row[column]]


def grouped(rows: Iterable[Row], *columns: str) -> dict[Any, list[Row]]:
    """The rows by the value of a column, or by the tuple of the values of several."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        key = tuple(row[column] for column in columns)
        groups.setdefault(key if len(columns) > 1 else key[0], []).append(row)
    return groups


def with_interval(middle: float, low: float, high: float, form: str) -> str:
    """The text "middle [low, high]", each number in the same format."""
    return f"{middle:{form}} [{low:{form}}, {high:{form}}]"


def iqm_with_interval(scores: Sequence[float], form: str) -> str:
    """Interquartile mean with its 95 % bootstrap interval; a single score has no interval."""
    middle = interquartile_mean(scores)
    if len(scores) == 1:
        return f"{middle:{form}}"
    return with_interval(middle, *bootstrap_interval(scores, np.random.default_rng(0)), form)


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]], rule: str = "---") -> str:
    """A Markdown table; `rule` is "---:" for columns of numbers."""
    lines = [head, [rule] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
