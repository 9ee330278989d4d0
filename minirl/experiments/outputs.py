"""Output folders: which experiment owns one, and which files a training run writes there."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minirl.rollout import reward_threshold
from minirl.support.interrupts import hold_interrupts
from minirl.support.serialization import (
    PolicyFileError,
    first_difference,
    load_arrays,
    load_policy,
    prepare_folder,
    save_policy,
    write_text,
)
from minirl.training import Result

MARKER, RUNS = "experiment.json", "runs"  # the names in an output folder


def claim_folder(folder: Path | str, identity: dict[str, Any]) -> Path:
    """Make an output folder, and make sure that no other experiment uses it.

    The identity is stored as `experiment.json`; the same experiment may use the folder again. A
    file `experiment.json` that is empty or damaged is replaced, since finished runs have their
    identity in their own files.

    Raises
    ------
    ValueError
        If the folder can't be written or holds another experiment, saying how it differs; or if
        `experiment.json` is damaged and a trained policy would be replaced.
    """
    path = prepare_folder(folder)
    marker = path / MARKER
    if marker.exists():
        try:
            found = json.loads(marker.read_text())
        except ValueError:
            _require_no_policy(path)
        else:
            difference = first_difference(found, identity, "" if found else "experiment")
            if difference:
                alone = ", or delete it: it holds nothing else" if _holds_nothing(path) else ""
                raise ValueError(
                    f"output folder {str(folder)!r} holds another experiment: {difference}; "
                    f"choose another folder{alone}"
                )
    write_text(marker, json.dumps(identity, indent=2) + "\n")
    return path


def saved_settings(folder: Path) -> dict[str, Any] | None:
    """The settings of the training run whose policy a folder holds; None without a policy."""
    try:
        return load_policy(folder / "policy.npz")[1]
    except (OSError, PolicyFileError):
        return None


def _require_no_policy(path: Path) -> None:
    if (path / "policy.npz").exists():
        raise ValueError(
            f"{path / MARKER} is damaged, and {path / 'policy.npz'} could be another experiment's; "
            "choose another folder, or delete one of these files"
        )


@contextlib.contextmanager
def claimed_folder(folder: Path | str, identity: dict[str, Any]) -> Iterator[Path]:
    """`claim_folder` for a block; if the block fails before it stores anything, the claim ends.

    The same folder is then free for the corrected command.

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
            if _holds_nothing(path):
                (path / MARKER).unlink()
        raise


def _holds_nothing(path: Path) -> bool:
    """Whether a folder holds only a claim, and perhaps an empty folder for runs."""
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
        If the file holds another experiment.
    """
    if not path.exists():
        return None
    try:
        found, arrays = load_arrays(path, file_format)
    except Exception:  # whatever it is, the run is computed again
        return None
    difference = first_difference(found, identity)
    if difference:
        raise ValueError(
            f"{path} holds another experiment: {difference}; choose another folder, or delete it"
        )
    return arrays


@hold_interrupts()
def save_training(result: Result, folder: Path) -> list[str]:
    """Write `policy.npz`, `history.csv` and `curve.png` of a training run, or keep better ones.

    Ctrl-C waits until everything is written.

    A partial result never replaces a finished one, nor a partial one of more steps. With
    evaluations during training, `best_policy.npz` is written too.

    Returns
    -------
    list of str
        The names of the files; none if those of a longer training were kept.
    """
    steps, saved = result.settings["environment_steps"], saved_settings(folder)
    if result.settings["partial"] and saved is not None:
        finished = not saved.get("partial", False)
        if finished or saved["environment_steps"] > steps:
            return []
    if result.best_policy is not None:
        columns = result.history.columns()
        best = columns["environment_steps"][np.nanargmax(columns["evaluation_return"])]
        settings = {**result.settings, "environment_steps": int(best)}
        save_policy(folder / "best_policy.npz", result.best_policy, settings)
    write_text(folder / "history.csv", result.history.to_csv())
    save_policy(folder / "policy.npz", result.policy, result.settings)
    if result.history.rows:
        _plot(result, folder / "curve.png")
    names = ("policy.npz", "best_policy.npz", "history.csv", "curve.png")
    return [name for name in names if (folder / name).exists()]


def _plot(result: Result, path: Path) -> None:
    from minirl.experiments import figures  # matplotlib is loaded only to draw

    env = result.settings["env"]
    figures.plot_training(
        result.history.columns(),
        (result.history.episode_ends, result.history.episode_returns),
        title=f"{result.settings['algorithm']['type']} on {env}, seed {result.settings['seed']}",
        threshold=reward_threshold(env),
        path=path,
    )
