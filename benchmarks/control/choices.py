"""The effect of each silent choice of an implementation: one is changed at a time, ten seeds.

    python -m benchmarks.control.choices            (about half an hour on one core)
    python -m benchmarks.control.choices --table    (the table of docs/reference/choices.md)
    python -m benchmarks.control.choices --figure docs/reference/choices.png

The score of a run is the mean over its environment steps of the 100-episode mean return. It
depends on the speed of learning as well as on the final return. The figure also shows the choices
on the token task, from rlhf/choices.py.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import minirl
from benchmarks import study
from benchmarks.ablation import DEFAULT, Choice, Effect, effects
from benchmarks.control.learning_curves import average_return
from benchmarks.rlhf import choices as rlhf_choices
from minirl import training
from minirl.advantages import AdvantageEstimator
from minirl.algorithms import trpo
from minirl.algorithms.policy_gradient import step_report
from minirl.batch import Batch, Rollout
from minirl.experiments.statistics import interquartile_mean

STUDY = study.Study(
    study.RESULTS / "choices.csv",
    ("environment", "algorithm", "choice", "seed"),
    ("score", "final_return", "mean_kl"),
)
STEPS = {"CartPole-v1": 60_000, "Pendulum-v1": 60_000, "MountainCarContinuous-v0": 60_000}
JOINT_NORM = 0.5
STRAY = 8


@dataclass(frozen=True)
class TimeLimitIsDeath:
    """Another estimator that treats every end of an episode as a termination."""

    estimator: AdvantageEstimator

    @property
    def discount(self) -> float:
        return self.estimator.discount

    def __call__(self, rollout: Rollout) -> tuple[np.ndarray, np.ndarray]:
        return self.estimator(
            replace(rollout, terminated=rollout.done, truncated=np.zeros_like(rollout.done))
        )


def patched(owner: Any, name: str, change: Callable[[Any], Any]) -> AbstractContextManager[Any]:
    """A context in which the function `owner.name` is replaced by change(the function)."""
    return mock.patch.object(owner, name, change(getattr(owner, name)))


def with_search_bound(factor: float) -> AbstractContextManager[Any]:
    """The line search accepts a KL of `factor` times TRPO's bound."""

    def change(search: Any) -> Any:
        def changed(*arguments: Any, max_kl: float, **others: Any) -> Any:
            return search(*arguments, max_kl=factor * max_kl, **others)

        return changed

    return patched(trpo, "trust_region_search", change)


def with_failed_steps_taken() -> AbstractContextManager[Any]:
    """Where no try was accepted, the last and smallest one is taken nevertheless."""

    def change(search: Any) -> Any:
        def changed(*arguments: Any, shrink: float, tries: int, **others: Any) -> Any:
            result = search(*arguments, shrink=shrink, tries=tries, **others)
            smallest = shrink ** (tries - 1)
            return result if result.fraction > 0 else result._replace(fraction=smallest)

        return changed

    return patched(trpo, "trust_region_search", change)


def with_a_stray_minibatch() -> AbstractContextManager[Any]:
    """Minibatches of nearly the preset's number and size, and a short one of the rows left over.

    The last minibatch has `STRAY` rows or a few more. It moves policy and critic as much as any.
    """

    def minibatches(batch: Batch, size: int, rng: np.random.Generator) -> Iterator[Any]:
        order = rng.permutation(len(batch))
        size = (len(batch) - STRAY) // max(1, round(len(batch) / size))
        for first in range(0, len(batch), size):
            rows = order[first : first + size]
            part = batch.rows(rows)
            yield rows, replace(part, weight=part.weight * (len(batch) / len(rows)))

    return mock.patch.object(Batch, "minibatches", minibatches)


def joint_stage(
    batch: Batch,
    learner: training.Learner,
    algorithm: minirl.PPO,
    settings: minirl.Settings,
    rng: np.random.Generator,
) -> tuple[training.Learner, dict[str, float]]:
    """One loss, policy loss + mean (V - R)^2 / 2, with PPO's minibatches, rate and epochs.

    The gradient with respect to policy and critic together is shortened to a norm of 0.5. Adam
    works entry by entry, so two optimisers are the same as one optimiser for both.
    """
    state, critic_state, fit = learner.state, learner.critic_state, settings.critic_fit
    batch = batch.with_normalized_advantages()
    fit = replace(fit, learning_rate=algorithm.learning_rate)
    old = state.policy(batch.observations)
    for _ in range(algorithm.epochs):
        for _, minibatch in batch.minibatches(algorithm.minibatch_size, rng):
            of_policy = state, minibatch, None
            of_critic = critic_state, minibatch
            norms = algorithm.step(*of_policy)[1], fit.step(*of_critic)[2]
            share = min(1.0, JOINT_NORM / np.hypot(*norms))
            limits = [{"max_gradient_norm": share * norm} for norm in norms]
            state = replace(algorithm, **limits[0]).step(*of_policy)[0]
            critic_state = replace(fit, **limits[1]).step(*of_critic)[0]
    new = state.policy(batch.observations)
    learner = replace(learner, state=state, critic_state=critic_state)
    return learner, step_report(old, new, batch)


def with_a_joint_loss() -> AbstractContextManager[Any]:
    """Policy and critic are updated by `joint_stage`."""
    return mock.patch.object(training, "optimisation_stage", joint_stage)


def with_kl_reversed() -> AbstractContextManager[Any]:
    """The line search bounds KL(new || old) instead of KL(old || new)."""

    def change(search: Any) -> Any:
        def changed(*arguments: Any, **others: Any) -> Any:
            with patched(minirl.Categorical, "kl", lambda kl: lambda self, other: kl(other, self)):
                return search(*arguments, **others)

        return changed

    return patched(trpo, "trust_region_search", change)


def with_damping_in_the_step() -> AbstractContextManager[Any]:
    """The step's length is computed from the damped Fisher matrix, which makes it shorter."""

    def change(full_step: Any) -> Any:
        return lambda solution, damping, max_kl: full_step(solution, 0.0, max_kl)

    return patched(trpo, "full_step", change)


@dataclass(frozen=True, kw_only=True)
class WhitenedPerMinibatch(minirl.PPO):
    """Advantages normalised within each minibatch instead of the batch."""

    def step(self, state: Any, minibatch: Batch, old: Any) -> tuple[Any, float, float]:
        return super().step(state, minibatch.with_normalized_advantages(), old)


@dataclass(frozen=True, kw_only=True)
class ClippedActions(minirl.PPO):
    """Learns from the clipped action that Pendulum received, as if the Gaussian had sampled it."""

    def update(self, state: Any, batch: Batch, *others: Any) -> tuple[Any, dict[str, float]]:
        received = np.clip(batch.actions, -2, 2)
        old = state.policy(batch.observations)
        batch = replace(batch, actions=received, log_probs=old.log_prob(received))
        return super().update(state, batch, *others)


def choices() -> list[Choice]:
    """Every choice, in the order of the table; the default of each preset comes first."""
    gae = minirl.GAE(discount=0.99, lam=0.95)
    pendulum_gae = minirl.GAE(discount=0.9, lam=0.95)
    fit = minirl.CriticFit()
    listed = []

    def add(environment: str, algorithm: str, name: str = DEFAULT, **others: Any) -> None:
        listed.append(Choice(environment, algorithm, name, **others))

    cartpole, pendulum = "CartPole-v1", "Pendulum-v1"
    add(cartpole, "ppo")
    add(cartpole, "ppo", "advantages not normalised", changes={"normalize_advantages": False})
    add(cartpole, "ppo", "advantages whitened per minibatch", kind=WhitenedPerMinibatch)
    add(cartpole, "ppo", "learning rate not annealed", changes={"learning_rate": 1e-3})
    add(cartpole, "ppo", "entropy bonus 0.01", changes={"entropy_coefficient": 0.01})
    add(cartpole, "ppo", "gradient norm at most 0.5", changes={"max_gradient_norm": 0.5})
    add(cartpole, "ppo", "stops at a KL of 0.02", changes={"target_kl": 0.02})
    add(cartpole, "ppo", "minibatches of 64", changes={"minibatch_size": 64})
    add(cartpole, "ppo", "4 epochs", changes={"epochs": 4})
    add(cartpole, "ppo", "no clipping", changes={"objective": minirl.Unclipped()})
    clipped = {"critic_fit": replace(fit, value_clip=0.2)}
    add(cartpole, "ppo", "value clipping 0.2", settings=clipped)
    as_ppo = replace(fit, learning_rate=minirl.LinearSchedule(1e-3), minibatch_size=256)
    add(cartpole, "ppo", "critic with PPO's minibatches and rate", settings={"critic_fit": as_ppo})
    add(cartpole, "ppo", "critic in one joint loss", during=with_a_joint_loss)
    add(cartpole, "ppo", "a stray short minibatch", during=with_a_stray_minibatch)
    add(cartpole, "ppo", "lambda 1", settings={"advantages": replace(gae, lam=1.0)})
    add(cartpole, "ppo", "lambda 0", settings={"advantages": replace(gae, lam=0.0)})
    add(cartpole, "ppo", "time limit as death", settings={"advantages": TimeLimitIsDeath(gae)})
    add(cartpole, "ppo", "observations normalised", settings={"normalize_observations": True})
    add(cartpole, "ppo", "states discounted", settings={"discount_states": True})
    add(cartpole, "ppo", "float64", settings={"dtype": "float64"})

    add(cartpole, "trpo")
    add(cartpole, "trpo", "advantages not normalised", changes={"normalize_advantages": False})
    add(cartpole, "trpo", "damping 0.001", changes={"damping": 1e-3})
    add(cartpole, "trpo", "damping 1", changes={"damping": 1.0})
    add(cartpole, "trpo", "damping shortens the step", during=with_damping_in_the_step)
    add(cartpole, "trpo", "3 CG iterations", changes={"cg_iterations": 3})
    add(cartpole, "trpo", "max_kl 0.003", changes={"max_kl": 0.003})
    add(cartpole, "trpo", "max_kl 0.03", changes={"max_kl": 0.03})
    add(cartpole, "trpo", "line search without KL check", during=partial(with_search_bound, np.inf))
    add(cartpole, "trpo", "line search accepts 1.5 max_kl", during=partial(with_search_bound, 1.5))
    add(cartpole, "trpo", "failed search: last try taken", during=with_failed_steps_taken)
    add(cartpole, "trpo", "KL(new || old) in the line search", during=with_kl_reversed)
    add(cartpole, "trpo", "time limit as death", settings={"advantages": TimeLimitIsDeath(gae)})

    add(cartpole, "policy-gradient")
    unnormalised = {"normalize_advantages": False}
    add(cartpole, "policy-gradient", "advantages not normalised", changes=unnormalised)
    for baseline in (None, "batch", "critic"):
        estimator = minirl.RewardToGo(discount=0.99, baseline=baseline)
        label = f"reward-to-go, baseline {baseline}"
        add(cartpole, "policy-gradient", label, settings={"advantages": estimator})
    add(cartpole, "policy-gradient", "states discounted", settings={"discount_states": True})

    add(pendulum, "ppo")
    add(pendulum, "ppo", "rewards not scaled", settings={"reward_transform": None})
    add(pendulum, "ppo", "observations normalised", settings={"normalize_observations": True})
    death = {"advantages": TimeLimitIsDeath(pendulum_gae)}
    add(pendulum, "ppo", "time limit as death", settings=death)
    add(pendulum, "ppo", "log-probability of the clipped action", kind=ClippedActions)
    far = {"advantages": gae, "reward_transform": minirl.ReturnScaling(discount=0.99)}
    add(pendulum, "ppo", "discount 0.99", settings=far)
    fast, bound = {"learning_rate": 0.03}, {"min_log_std": -0.5}
    add(pendulum, "ppo", "learning rate 0.03, not annealed", changes=fast)
    add(pendulum, "ppo", "learning rate 0.03, log_std at least -0.5", changes=fast, settings=bound)
    stop = {**fast, "target_kl": 0.02}
    add(pendulum, "ppo", "learning rate 0.03, stops at a KL of 0.02", changes=stop)

    car, from_zero = "MountainCarContinuous-v0", {"initial_log_std": 0.0}
    add(car, "ppo")
    add(car, "ppo", "log_std starts at 0", settings=from_zero)
    add(car, "ppo", "log_std starts at 0, at least -0.5", settings={**from_zero, **bound})
    return listed


Key = tuple[str, str, str, int]


def run(item: Key) -> list[str]:
    """Train one choice with one seed: the values of its row."""
    *key, seed = item
    choice = next(one for one in choices() if one.key == tuple(key))
    algorithm, settings = choice.variant()
    steps = STEPS[choice.environment]
    with choice.during():
        history = minirl.train(
            choice.environment, algorithm, total_steps=steps, seed=seed, settings=settings
        ).history
    columns = history.columns()
    values = average_return(columns), history.final_return(), float(columns["kl"].mean())
    return [f"{value:.6g}" for value in values]


def wanted(seeds: int) -> list[Key]:
    """All runs, seed by seed."""
    return [(*choice.key, seed) for seed in range(seeds) for choice in choices()]


def stored_effects() -> list[Effect]:
    """The effect of every choice, from the stored runs."""
    runs = study.grouped(STUDY.rows(), *STUDY.key[:3])
    return effects(choices(), {key: study.numbers(rows, "score") for key, rows in runs.items()})


def table() -> str:
    """One line per choice: its score, the difference to the default, and the verdict."""
    lines = []
    for effect in stored_effects():
        environment, algorithm, name = effect.choice.key
        label, score = name.replace("|", r"\|"), f"{interquartile_mean(effect.scores):.0f}"
        difference = effect.difference(signed)
        lines.append([environment, algorithm, label, score, difference, effect.verdict])
    head = ["environment", "algorithm", "choice", "score", "difference to the default", "verdict"]
    return study.markdown(head, lines)


def signed(points: float) -> str:
    """Rounded to a point; below half a point to one digit, so that no bound is rounded to 0."""
    return f"{points:+.0f}" if abs(points) > 0.5 else f"{points:+.1g}"


# Okabe and Ito's colours; each verdict has its own marker too.
LOOKS = {"worse": ("#D55E00", "v"), "better": ("#0072B2", "^"), "cannot tell": ("#666666", "o")}
ALL = "all"  # the token task has one panel for all algorithms
PANELS = (
    [("CartPole-v1", "ppo")],
    [("CartPole-v1", "trpo"), ("CartPole-v1", "policy-gradient")],
    [("Pendulum-v1", "ppo"), ("MountainCarContinuous-v0", "ppo"), (rlhf_choices.ENVIRONMENT, ALL)],
)


def draw(path: Path) -> None:
    """One figure of all effects, a panel per task and algorithm, each in its own units."""
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    panels: dict[tuple[str, str], list[Effect]] = {}
    for effect in [*stored_effects(), *rlhf_choices.stored_effects()]:
        environment, algorithm, name = effect.choice.key
        if name != DEFAULT:
            panel = environment, ALL if environment == rlhf_choices.ENVIRONMENT else algorithm
            panels.setdefault(panel, []).append(effect)
    figure = plt.figure(figsize=(15, 7.5), layout="constrained")
    for column, keys in zip(figure.subfigures(1, 3), PANELS, strict=True):
        heights = [len(panels[key]) + 1.5 for key in keys]
        grid = np.atleast_1d(column.subplots(len(keys), 1, height_ratios=heights))
        for axes, key in zip(grid, keys, strict=True):
            draw_panel(axes, key, panels[key])
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="none", label=verdict)
        for verdict, (colour, marker) in LOOKS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(
        "One choice changed at a time: difference to the default, interquartile mean of 10 seeds "
        "with 95 % interval; scales differ"
    )
    figure.savefig(path, dpi=110)


def draw_panel(axes: Any, key: tuple[str, str], panel: list[Effect]) -> None:
    """One line per effect: a marker at the difference, a bar over its interval, and the name."""
    environment, algorithm = key
    token_task = algorithm == ALL
    for place, effect in enumerate(panel):
        colour, marker = LOOKS[effect.verdict]
        comparison = effect.comparison
        axes.plot(comparison.difference_interval, [place, place], color=colour)
        axes.plot(comparison.iqm_difference, place, color=colour, marker=marker)
        prefix = f"{effect.choice.algorithm}: " if token_task else ""
        axes.annotate(
            prefix + effect.choice.name,
            (0, place),
            xycoords=("axes fraction", "data"),
            xytext=(-6, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=9,
        )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(yticks=[], ylim=(len(panel) - 0.4, -0.6))
    axes.set_title("token task" if token_task else f"{environment}, {algorithm}", fontsize=10)
    score = "fraction of optimum\n(logarithmic beyond 0.01)" if token_task else "mean return"
    axes.set_xlabel(f"difference in {score}")
    if token_task:  # from thousandths to 3
        axes.set_xscale("symlog", linthresh=0.01)
        axes.set_xticks([-1, -0.1, -0.01, 0, 0.01], ["-1", "-0.1", "-0.01", "0", "0.01"])
        axes.set_xlim(-8, 0.015)
    axes.spines[["top", "right", "left"]].set_visible(False)


if __name__ == "__main__":
    study.main(__doc__, STUDY, run, wanted, table, draw=draw, seeds=10)
