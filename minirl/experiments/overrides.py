"""`NAME=VALUE` overrides of a preset: the option `--set` of the command line."""

import ast
import reprlib
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from minirl.advantages import (
    GAE,
    GroupCentered,
    GroupNormalized,
    LeaveOneOut,
    PassAtK,
    RewardToGo,
    SuccessNormalized,
)
from minirl.algorithms.ppo import AdaptiveKL, Clipped, FixedKL, Unclipped
from minirl.algorithms.ratio_objectives import (
    ClippedWeight,
    SequenceClip,
    SequenceRatio,
    SoftGate,
    Uncorrected,
)
from minirl.algorithms.reference_loss import ReferenceLoss
from minirl.critic_fit import CriticFit, TableFit
from minirl.optimizers import SGD, Adam, LinearSchedule
from minirl.presets import Preset
from minirl.reward_transforms import ReturnScaling
from minirl.settings import Settings
from minirl.support.arguments import check_arguments

CONSTRUCTORS = {
    kind.__name__: kind
    for kind in (
        SGD,
        Adam,
        LinearSchedule,
        GAE,
        RewardToGo,
        LeaveOneOut,
        GroupCentered,
        GroupNormalized,
        SuccessNormalized,
        PassAtK,
        ReturnScaling,
        CriticFit,
        TableFit,
        Clipped,
        Unclipped,
        FixedKL,
        AdaptiveKL,
        SequenceRatio,
        SequenceClip,
        ClippedWeight,
        SoftGate,
        Uncorrected,
        ReferenceLoss,
    )
}

SHORTENED = reprlib.Repr()
SHORTENED.maxstring = 200  # characters of a value in a message


def parse_value(text: str) -> Any:
    """The value of a literal or of a call of one of `CONSTRUCTORS`, such as "FixedKL(0.5)".

    No other code is executed.

    Raises
    ------
    ValueError
        If the text is neither of the two.
    """

    def build(node: ast.expr) -> Any:
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in CONSTRUCTORS:
            arguments = [build(argument) for argument in node.args]
            keywords = {str(item.arg): build(item.value) for item in node.keywords}
            return CONSTRUCTORS[node.func.id](*arguments, **keywords)  # type: ignore[attr-defined]
        try:
            return ast.literal_eval(node)
        except ValueError:
            raise ValueError("neither a literal nor one of the names listed here") from None

    try:
        return build(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error) or "nested too deeply"
        raise ValueError(
            f"value {SHORTENED.repr(text)} is not understood: {reason}; give a Python literal or "
            f"one of {', '.join(CONSTRUCTORS)}"
        ) from error


def with_overrides(preset: Preset, overrides: Sequence[str]) -> Preset:
    """The preset with fields of its algorithm and its settings replaced.

    Parameters
    ----------
    overrides : sequence of str
        Texts "NAME=VALUE", with a value for `parse_value`. The last text of a name is used.

    Raises
    ------
    ValueError
        For an unknown field or a bad value.
    """
    algorithm: Any = preset.algorithm
    names = {
        "algorithm": [field.name for field in fields(algorithm)],
        "settings": [field.name for field in fields(Settings)],
    }
    values: dict[str, dict[str, Any]] = {part: {} for part in names}
    for override in overrides:
        name, equals, text = override.partition("=")
        name = name.strip()
        if not equals:
            raise ValueError(f"expected NAME=VALUE, got {override!r}")
        parts = [part for part in names if name in names[part]]
        if not parts:
            raise ValueError(
                f"field {name!r} is unknown; {type(algorithm).__name__} has "
                f"{', '.join(names['algorithm'])}; settings have {', '.join(names['settings'])}"
            )
        values[parts[0]][name] = parse_value(text)
    # All at once, because some values are only valid together, in whatever order they are given.
    return Preset(
        replace(algorithm, **values["algorithm"]),
        replace(preset.settings, **values["settings"]),
    )


check_arguments(__name__)
