"""Long experiments whose finished runs are stored in a CSV file, and the tables made from it.

A script lists its runs. `Study.complete` computes those that the file does not contain, and appends
a row as soon as a run has finished. An interrupted script therefore continues where it stopped. The
file does not contain the version of the package: delete the file after a change of the package.
"""

import argparse
import csv
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from minirl.experiments.jobs import compute
from minirl.experiments.statistics import bootstrap_interval, interquartile_mean, with_interval
from minirl.support.serialization import csv_text, write_text

RESULTS = Path(__file__).parent / "results"
POLICIES = Path(__file__).parent / "policies"

Row = dict[str, str]
Item = TypeVar("Item", bound=tuple)


@dataclass(frozen=True)
class Study:
    """Runs that are stored in a CSV file, one row per run.

    Parameters
    ----------
    path : Path
    key : tuple of str
        Columns that identify a run. A run is requested by an item: a tuple of their values, which
        may have further entries that are not stored.
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
            file.write(csv_text([[*self.key, *self.values], *rows] if is_new else rows))

    def missing(self, items: Iterable[Item]) -> list[Item]:
        """The items without a row. If several items have the same key, the first ones get the rows.

        All items have the same length. If they are shorter than the key, an item has a row if the
        row begins with the item.
        """
        items, missing = list(items), []
        columns = self.key[: len(items[0])] if items else ()
        available = Counter(tuple(row[name] for name in columns) for row in self.rows())
        for item in items:
            key = tuple(map(str, item[: len(columns)]))
            if available[key]:
                available[key] -= 1
            else:
                missing.append(item)
        return missing

    def store(self, item: Item, values: Sequence[object] | None) -> None:
        """Append the row of a finished run; None means that there is no result to store."""
        if values is not None:
            self.append([[*item[: len(self.key)], *values]])

    def complete(
        self,
        run: Callable[[Item], Any],
        items: Iterable[Item],
        workers: int = 1,
        store: Callable[[Item, Any], None] | None = None,
    ) -> None:
        """Compute run(item) for each missing item, and store each result when it is finished.

        One worker means this process, in the order of the items.
        """
        missing = self.missing(items)
        with closing(compute(run, missing, workers=workers)) as results:
            for item, result in tqdm(results, total=len(missing), unit="run"):
                (store or self.store)(item, result)


def main(
    description: str,
    study: Study,
    run: Callable[[Item], Any],
    items: Callable[..., Iterable[Item]],
    table: Callable[[], str] | None = None,
    *,
    draw: Callable[[Path], None] | None = None,
    seeds: int | None = None,
    store: Callable[[Item, Any], None] | None = None,
    parallel: bool = True,
) -> None:
    """The command line of a script: compute the missing runs, then print the tables.

    Parameters
    ----------
    description : str
        The script's docstring, whose first line is shown.
    study : Study
    run : callable
        From an item to the values of its row.
    items : callable
        Returns all items; it receives the number of seeds if `seeds`, its default, is given.
    table, draw : callable, optional
        Returns the tables (--table); draws the figure into a file (--figure FILE). With these
        options nothing is computed.
    store : callable, optional
        Stores an item's result, in place of `study.store`.
    parallel : bool
        Whether runs are computed in --workers processes, or in this one.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    if seeds is not None:
        parser.add_argument("--seeds", type=int, default=seeds, help="number of seeds")
    if parallel:
        parser.add_argument("--workers", type=int, default=1, help="processes (1: only this one)")
    if table:
        parser.add_argument("--table", action="store_true", help="print the stored runs' tables")
    if draw:
        parser.add_argument("--figure", type=Path, help="draw the stored runs into this file")
    arguments = parser.parse_args()
    if draw and arguments.figure:
        draw(arguments.figure)
        return
    if not (table and arguments.table):
        wanted = items() if seeds is None else items(arguments.seeds)
        study.complete(run, wanted, arguments.workers if parallel else 1, store)
    if table:
        print(table())


def write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a whole CSV file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, csv_text([columns, *rows]))


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


def median_with_range(values: Sequence[float] | np.ndarray, form: str) -> str:
    """The median with the smallest and the largest value; empty if there are no values."""
    return with_interval(np.median(values), min(values), max(values), form) if len(values) else ""


def iqm(scores: Sequence[float]) -> tuple[float, float, float]:
    """Interquartile mean and its 95 % bootstrap interval over seeds."""
    return interquartile_mean(scores), *bootstrap_interval(scores, np.random.default_rng(0))


def iqm_with_interval(scores: Sequence[float], form: str) -> str:
    """The text of `iqm`; a single score has no interval."""
    if len(scores) == 1:
        return f"{scores[0]:{form}}"
    return with_interval(*iqm(scores), form)


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]], rule: str = "---") -> str:
    """A Markdown table; `rule` is "---:" for columns of numbers."""
    lines = [head, [rule] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def titled(tables: Mapping[str, str]) -> str:
    """Tables below their titles."""
    return "\n\n".join(f"{title}\n\n{table}" for title, table in tables.items())


def clean(axes: Any, title: str, x_label: str, y_label: str) -> None:
    """The titles of a panel, which gets a faint grid and no box."""
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
