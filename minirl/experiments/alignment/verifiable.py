"""Verifiable rewards in one figure: how much a prompt counts, and what follows from it.

On the left, the exact weight w(p) that each method gives to a prompt of success rate p: its
expected update is ``w(p) grad p``, if tokens are summed and ratios are 1. On the right, the exact
success rate of the hardest of four prompts while the methods learn. There, all of them use plain
gradient descent with the same step size. Adam divides by the size of past gradients, and in a table
no two prompts share a parameter, so Adam would cancel most of the difference.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minirl.algorithms import PPO
from minirl.algorithms.ppo import Clipped
from minirl.envs.verifiable import UNEQUAL, first_answer_correct, verifiable
from minirl.exact.groups import normalized_weight
from minirl.optimizers import SGD
from minirl.policy import Policy
from minirl.presets import Preset, preset
from minirl.rlhf.align import ENVIRONMENT, align
from minirl.rlhf.objective import reward_by_prompt
from minirl.rlhf.sft import fine_tune, sample_demonstrations

GROUP_SIZE = 16
SENTENCES = 20_480
BATCH = 512  # sentences per update
STEP_SIZE = 3.0
DEMONSTRATIONS = 2_000
METHODS = ("rloo", "grpo-paper", "dr-grpo", "dapo", "maxrl")


def prompt_weights(p: np.ndarray, group_size: int) -> dict[str, np.ndarray]:
    """The weight w(p) of a prompt, from a method's name to an array of the shape of `p`.

    The expected update is ``w(p) grad p``. RLOO: 1. Dr. GRPO: ``1 - 1/K``. GRPO:
    `normalized_weight`. MaxRL:
    ``sum over j < K of (1 - p)^(j - 1) = (1 - (1 - p)^(K - 1)) / p``. GRPO also divides by lengths,
    which the weight leaves out. DAPO has GRPO's weights times a factor that all prompts share.
    """
    return {
        "rloo": np.ones_like(p),
        "grpo-paper": normalized_weight(p, group_size),
        "dr-grpo": np.full_like(p, 1 - 1 / group_size),
        "maxrl": (1 - (1 - p) ** (group_size - 1)) / p,
    }


def same_steps(name: str) -> Preset:
    """The preset with groups of `GROUP_SIZE`, no KL, and one step of gradient descent per batch."""
    chosen = preset(ENVIRONMENT, name)
    algorithm = PPO(
        objective=getattr(chosen.algorithm, "objective", Clipped()),
        learning_rate=STEP_SIZE,
        epochs=1,
        minibatch_size=BATCH,
        optimizer=SGD(),
    )
    return Preset(algorithm, replace(chosen.settings, group_size=GROUP_SIZE, num_envs=BATCH))


def success_rates(seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Sentences sampled (U,) and success rates (U, 4) of each method while it learns.

    The four prompts have demonstrations that are right at the rates `UNEQUAL`. The rates are exact.
    """
    task = verifiable(first_answer_correct, success_rates=UNEQUAL)
    rng = np.random.default_rng(seed)
    reference = fine_tune(task, sample_demonstrations(task, DEMONSTRATIONS, rng)).policy
    found = {}
    for name in METHODS:
        rates: list[np.ndarray] = []

        def measure(policy: Policy, rates: list[np.ndarray] = rates) -> dict[str, float]:
            rates.append(reward_by_prompt(task, policy))
            return {}

        result = align(
            task,
            reference,
            task.utilities,
            same_steps(name),
            sentences=SENTENCES,
            beta=None,
            seed=seed,
            measure=measure,
        )
        measure(result.policy)
        sentences = np.concatenate([[0], result.history.columns()["episodes"]])
        found[name] = sentences, np.array(rates)
    return found


def describe_verifiable(rates: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """One line per method: the success rate of each prompt before and after."""
    lines = [
        f"6. Verifiable rewards: success rates of four prompts after {SENTENCES:,} sentences",
        "    before            " + _shown(next(iter(rates.values()))[1][0]),
    ]
    lines += [f"    {name:18}{_shown(curve[-1])}" for name, (_, curve) in rates.items()]
    return "\n".join(lines)


def _shown(rates: np.ndarray) -> str:
    return "   ".join(f"{rate:.3f}" for rate in rates)


def draw_verifiable(rates: dict[str, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Draw verifiable.png: weights of a prompt, and the hardest prompt while the methods learn."""
    # Imported here because Matplotlib is loaded only to draw.
    from minirl.experiments import figures

    figure = figures._agg_figure(11.0, 4.6)
    left, right = figure.subplots(1, 2)
    styles = figures.algorithm_styles(METHODS)
    label: dict[str, Any] = {"fontsize": 11, "color": figures.INK}
    p = np.geomspace(0.005, 0.995, 400)
    for name, weights in prompt_weights(p, GROUP_SIZE).items():
        color, line = styles[name]
        shown = "GRPO, DAPO" if name == "grpo-paper" else figures.LABELS[name]
        left.plot(p, weights, color=color, linestyle=line, linewidth=2.2, label=shown)
    left.set(xscale="log", yscale="log")
    left.set_xlabel("success rate p of a prompt", **label)
    left.set_ylabel(f"weight w(p) of its gradient, K = {GROUP_SIZE}", **label)
    left.set_title("How much a prompt counts, exact", loc="left", **label)
    left.legend(frameon=False, fontsize=10, labelcolor=figures.INK, handlelength=3.2)
    left.set_ylim(0.7, 30)
    for name, (sentences, curve) in rates.items():
        color, line = styles[name]
        shown = figures.LABELS[name]
        right.plot(sentences, curve[:, -1], color=color, linestyle=line, linewidth=2.2, label=shown)
    right.set(yscale="log")
    right.legend(frameon=False, fontsize=10, labelcolor=figures.INK, handlelength=3.2)
    right.set_xlabel("sentences sampled", **label)
    right.set_ylabel("exact success rate of the hardest prompt", **label)
    right.set_title("Small steps of gradient descent, the same for all", loc="left", **label)
    for axes in (left, right):
        figures._clean(axes)
    figures._finished(figure, path)
