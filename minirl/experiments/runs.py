"""Output folders: which experiment owns a folder, and how finished runs are stored there."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minirl.support.interrupts import hold_interrupts
from minirl.support.serialization import (
    PolicyFileError,
    first_difference,
    load_arrays,
    load_policy,
    prepare_folder,
    save_arrays,
    save_policy,
    write_text,
)
from minirl.training import Result
from minirl.vector_env import reward_threshold

MARKER, RUNS = "experiment.json", "runs"  # names in an output folder
FORMAT = "minirl-run-1"  # of the files of finished runs
SCORES = ("final_training_return", "evaluation_return", "steps_to_threshold", "cut_episodes")


@dataclass(frozen=True, eq=False)
class Run:
    """The result of one finished seed of a comparison.

    Parameters
    ----------
    columns : dict of ndarray (U,)
        The history, one entry per update.
    final_training_return : float
        Mean return of the last 100 training episodes.
    evaluation_return : float
        Mean return of fresh greedy episodes.
    steps_to_threshold : float
        Environment steps when the 100-episode mean first reached the threshold; nan if it never
        did.
    cut_episodes : int
        Number of evaluation episodes that were cut, see `evaluate`.
    """

    columns: dict[str, np.ndarray]
    final_training_return: float
    evaluation_return: float
    steps_to_threshold: float
    cut_episodes: int = 0

    def save(self, path: Path, identity: dict[str, Any]) -> None:
        """Write the run and its identity to a file."""
        scores = [getattr(self, name) for name in SCORES]
        save_arrays(path, FORMAT, identity, {"scores": np.array(scores), **self.columns})

    @classmethod
    def load(cls, path: Path, identity: dict[str, Any]) -> "Run | None":
        """A stored run; None if there is none, or its file is damaged.

        Raises
        ------
        ValueError
            If the file belongs to another experiment.
        """
        columns = load_run(path, FORMAT, identity)
        if columns is None:
            return None
        try:
            training, evaluation, steps, cut = columns.pop("scores").tolist()
            updates = len(columns["environment_steps"])
            if any(column.shape != (updates,) for column in columns.values()):
                return None
            return cls(columns, training, evaluation, steps, int(cut))
        except (KeyError, TypeError, ValueError):
            return None


def claim_folder(folder: Path | str, identity: dict[str, Any]) -> Path:
    """Create an output folder, and make sure that no other experiment uses it.

    The identity is stored as `experiment.json`, and the same experiment may use the folder again.
    An empty or damaged `experiment.json` is replaced, because the file of each finished run also
    contains its identity.

    Raises
    ------
    ValueError
        If the folder can't be written; if it belongs to another experiment (the message names the
        difference); or if `experiment.json` is damaged and a trained policy could be replaced.
    """
    path = prepare_folder(folder)
    marker = path / MARKER
    if marker.exists():
        try:
            stored = json.loads(marker.read_text())
        except ValueError:
            _require_no_policy(path)
        else:
            difference = first_difference(stored, identity, "" if stored else "experiment")
            if difference:
                deletion = ", or delete it: it contains no results" if _is_empty(path) else ""
                raise ValueError(
                    f"output folder {str(folder)!r} belongs to another experiment: {difference}; "
                    f"choose another folder{deletion}"
                )
    write_text(marker, json.dumps(identity, indent=2) + "\n")
    return path


def saved_description(folder: Path) -> dict[str, Any] | None:
    """The description of the training run whose policy a folder contains; None without one."""
    try:
        return load_policy(folder / "policy.npz")[1]
    except (OSError, PolicyFileError):
        return None


def _require_no_policy(path: Path) -> None:
    if (path / "policy.npz").exists():
        raise ValueError(
            f"{path / MARKER} is damaged, so {path / 'policy.npz'} could belong to another "
            "experiment; choose another folder, or delete one of these files"
        )


@contextlib.contextmanager
def claimed_folder(folder: Path | str, identity: dict[str, Any]) -> Iterator[Path]:
    """`claim_folder` for a block. If the block fails before it stores anything, the claim ends.

    A corrected command can then use the same folder.

    Raises
    ------
    ValueError
        As `claim_folder`.
    """
    path = claim_folder(folder, identity)
    try:
        yield path
    except BaseException:
        with contextlib.suppress(OSError):  # the block's own error is the one to report
            if _is_empty(path):
                (path / MARKER).unlink()
        raise


def _is_empty(path: Path) -> bool:
    """Whether a folder contains only a claim, and perhaps an empty folder for runs."""
    runs = path / RUNS
    others = {entry.name for entry in path.iterdir()} - {MARKER, RUNS}
    return not others and not (runs.exists() and any(runs.iterdir()))


def load_run(
    path: Path, file_format: str, identity: dict[str, Any]
) -> dict[str, np.ndarray] | None:
    """The arrays of a finished run; None if there is no such file, or it is damaged.

    Raises
    ------
    ValueError
        If the file belongs to another experiment.
    """
    if not path.exists():
        return None
    try:
        stored, arrays = load_arrays(path, file_format)
    except Exception:  # a damaged run is computed again, whatever the damage
        return None
    difference = first_difference(stored, identity)
    if difference:
        raise ValueError(
            f"{path} belongs to another experiment: {difference}; choose another folder, or delete "
            "the file"
        )
    return arrays


@hold_interrupts()
def save_training(result: Result, folder: Path) -> list[str]:
    """Write `policy.npz`, `history.csv` and `curve.png` of a training run.

    With evaluations during training, `best_policy.npz` is written too. A partial result replaces
    neither a finished one nor a partial one of more steps. Ctrl-C is deferred until everything is
    written.

    Returns
    -------
    list of str
        The names of the files; empty if the folder contains the result of a longer training.
    """
    steps, saved = result.description["environment_steps"], saved_description(folder)
    if result.description["partial"] and saved is not None:
        finished = not saved.get("partial", False)
        if finished or saved["environment_steps"] > steps:
            return []
    if result.best_policy is not None:
        columns = result.history.columns()
        best = columns["environment_steps"][np.nanargmax(columns["evaluation_return"])]
        description = {**result.description, "environment_steps": int(best)}
        save_policy(result.best_policy, folder / "best_policy.npz", description)
    write_text(folder / "history.csv", result.history.to_csv())
    save_policy(result.policy, folder / "policy.npz", result.description)
    if result.history.rows:
        _plot(result, folder / "curve.png")
    names = ("policy.npz", "best_policy.npz", "history.csv", "curve.png")
    return [name for name in names if (folder / name).exists()]


def _plot(result: Result, path: Path) -> None:
    with hold_interrupts():  # a signal would break the import of a compiled module
        from minirl.experiments import figures  # matplotlib is loaded only to draw

    description, env = result.description, result.description["env"]
    figures.plot_training(
        result.history.columns(),
        (result.history.episode_ends, result.history.episode_returns),
        title=f"{description['algorithm']['type']} on {env}, seed {description['seed']}",
        threshold=reward_threshold(env),
        path=path,
    )
