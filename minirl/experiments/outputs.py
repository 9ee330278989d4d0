"""Output folders: which experiment owns one, and which files a training run writes there."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from minirl.rollout import reward_threshold
from minirl.serialization import (
    PolicyFileError,
    first_difference,
    load_policy,
    prepare_folder,
    save_policy,
    write_text,
)
from minirl.training import Result


def claim_folder(folder: Path | str, identity: dict[str, Any]) -> Path:
    """Make an output folder, and make sure that no other experiment lives in it.

    The identity is stored as `experiment.json`; the same experiment may use the folder again.

    Raises
    ------
    ValueError
        If the folder can't be written or holds another experiment, saying how it differs.
    """
    path = prepare_folder(folder)
    marker = path / "experiment.json"
    if marker.exists():
        try:
            found = json.loads(marker.read_text())
        except ValueError:
            found = None
        difference = first_difference(found, identity, "" if found else "experiment")
        if difference:
            raise ValueError(
                f"output folder {str(folder)!r} holds another experiment: {difference}; "
                "choose another folder"
            )
    write_text(marker, json.dumps(identity, indent=2) + "\n")
    return path


def saved_settings(folder: Path) -> dict[str, Any] | None:
    """The settings of the training run whose policy a folder holds; None without a policy."""
    try:
        return load_policy(folder / "policy.npz")[1]
    except (OSError, PolicyFileError):
        return None


def save_training(result: Result, folder: Path) -> list[str]:
    """Write `policy.npz`, `history.csv` and `curve.png` of a training run, or keep better ones.

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
    from minirl.experiments import plots  # matplotlib is loaded only to draw

    env = result.settings["env"]
    plots.plot_training(
        result.history.columns(),
        (result.history.episode_ends, result.history.episode_returns),
        title=f"{result.settings['algorithm']['type']} on {env}, seed {result.settings['seed']}",
        threshold=reward_threshold(env),
        path=path,
    )
