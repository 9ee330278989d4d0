"""Output folders: whose they are, and what a training run leaves in them."""

import json
from pathlib import Path
from typing import Any

from minirl.rollout import reward_threshold
from minirl.serialization import prepare_folder, save_policy, write_text
from minirl.training import Result


def first_difference(found: Any, wanted: Any, name: str = "") -> str | None:
    """Where two JSON-ready descriptions first differ, in words; None if they are equal."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in dict.fromkeys([*wanted, *found]):
            inner = first_difference(
                found.get(key), wanted.get(key), f"{name}.{key}" if name else key
            )
            if inner:
                return inner
        return None
    return None if found == wanted else f"{name} is {found!r} there, {wanted!r} here"


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


def save_training(result: Result, folder: Path) -> None:
    """Write `policy.npz`, `history.csv` and `curve.png` of a training run."""
    save_policy(folder / "policy.npz", result.policy, result.settings)
    write_text(folder / "history.csv", result.history.to_csv())
    if not result.history.rows:
        return
    from minirl.experiments import plots  # matplotlib is loaded only to draw

    env = result.settings["env"]
    plots.plot_training(
        result.history.columns(),
        (result.history.episode_ends, result.history.episode_returns),
        title=f"{result.settings['algorithm']['type']} on {env}, seed {result.settings['seed']}",
        threshold=reward_threshold(env),
        path=folder / "curve.png",
    )
