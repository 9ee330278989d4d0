"""The effect of implementation choices that papers leave open: one is changed at a time.

    python -m benchmarks.control.choices            (about half an hour on one core)
    python -m benchmarks.control.choices --table    (the table of docs/reference/choices.md)
    python -m benchmarks.control.choices --figure docs/reference/choices.png

Each choice is run on ten seeds. The score of a run is the mean over its environment steps of the
100-episode mean return. It depends on the speed of learning as well as on the final return.
--figure draws the choices with the largest effects into its file, and beside it one figure per
algorithm and task. They include the token task, from rlhf/choices.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

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
from minirl.experiments.figures import BLUE, GREY, VERMILLION
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


# TRPO's functions; a run may use one of those below instead.
SEARCH, FULL_STEP = trpo.trust_region_search, trpo.full_step


def search_within(factor: float, *arguments: Any, max_kl: float, **others: Any) -> Any:
    """The line search accepts a KL of `factor` times TRPO's bound."""
    return SEARCH(*arguments, max_kl=factor * max_kl, **others)


def search_that_moves(*arguments: Any, shrink: float, tries: int, **others: Any) -> Any:
    """Where no try was accepted, the last and smallest one is taken nevertheless."""
    result = SEARCH(*arguments, shrink=shrink, tries=tries, **others)
    return result if result.fraction > 0 else result._replace(fraction=shrink ** (tries - 1))


def search_with_kl_reversed(*arguments: Any, **others: Any) -> Any:
    """The line search bounds KL(new || old) instead of KL(old || new)."""
    kl = minirl.Categorical.kl
    with mock.patch.object(minirl.Categorical, "kl", lambda old, new: kl(new, old)):
        return SEARCH(*arguments, **others)


def damped_step(solution: Any, damping: float, max_kl: float) -> np.ndarray:
    """The step's length is computed from the damped Fisher matrix, which makes it shorter."""
    return FULL_STEP(solution, 0.0, max_kl)


DAMPED_STEP = trpo, "full_step", damped_step


def stray_minibatches(batch: Batch, size: int, rng: np.random.Generator) -> Iterator[Any]:
    """Minibatches of nearly the preset's number and size, and a short one of the rows left over.

    The last minibatch has `STRAY` rows or a few more. It moves policy and critic as much as any.
    """
    order = rng.permutation(len(batch))
    size = (len(batch) - STRAY) // max(1, round(len(batch) / size))
    for first in range(0, len(batch), size):
        rows = order[first : first + size]
        part = batch.rows(rows)
        yield rows, replace(part, weight=part.weight * (len(batch) / len(rows)))


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
    cartpole_ppo, cartpole_trpo, cartpole_gradient = (
        partial(Choice, "CartPole-v1", name) for name in ("ppo", "trpo", "policy-gradient")
    )
    pendulum_ppo, car_ppo = (
        partial(Choice, env, "ppo") for env in ("Pendulum-v1", "MountainCarContinuous-v0")
    )
    raw = {"normalize_advantages": False}
    normalised, discounted = {"normalize_observations": True}, {"discount_states": True}
    gae = minirl.GAE(discount=0.99, lam=0.95)
    death = {"advantages": TimeLimitIsDeath(gae)}
    pendulum_death = {"advantages": TimeLimitIsDeath(minirl.GAE(discount=0.9, lam=0.95))}
    far = {"advantages": gae, "reward_transform": minirl.ReturnScaling(discount=0.99)}
    fit = minirl.CriticFit()
    as_ppo = replace(fit, learning_rate=minirl.LinearSchedule(1e-3), minibatch_size=256)
    unchecked, looser, moving, reversed_kl = (
        (trpo, "trust_region_search", search)
        for search in (
            partial(search_within, np.inf),
            partial(search_within, 1.5),
            search_that_moves,
            search_with_kl_reversed,
        )
    )
    joint = training, "optimisation_stage", joint_stage
    stray = Batch, "minibatches", stray_minibatches
    fast, bound, from_zero = (
        {"learning_rate": 0.03},
        {"min_log_std": -0.5},
        {"initial_log_std": 0.0},
    )
    return [
        cartpole_ppo(),
        cartpole_ppo("advantages not normalised", changes=raw),
        cartpole_ppo("advantages whitened per minibatch", kind=WhitenedPerMinibatch),
        cartpole_ppo("learning rate not annealed", changes={"learning_rate": 1e-3}),
        cartpole_ppo("entropy bonus 0.01", changes={"entropy_coefficient": 0.01}),
        cartpole_ppo("gradient norm at most 0.5", changes={"max_gradient_norm": 0.5}),
        cartpole_ppo("stops at a KL of 0.02", changes={"target_kl": 0.02}),
        cartpole_ppo("minibatches of 64", changes={"minibatch_size": 64}),
        cartpole_ppo("4 epochs", changes={"epochs": 4}),
        cartpole_ppo("no clipping", changes={"objective": minirl.Unclipped()}),
        cartpole_ppo("value clipping 0.2", settings={"critic_fit": replace(fit, value_clip=0.2)}),
        cartpole_ppo("critic with PPO's minibatches and rate", settings={"critic_fit": as_ppo}),
        cartpole_ppo("critic in one joint loss", replaced=joint),
        cartpole_ppo("a stray short minibatch", replaced=stray),
        cartpole_ppo("lambda 1", settings={"advantages": replace(gae, lam=1.0)}),
        cartpole_ppo("lambda 0", settings={"advantages": replace(gae, lam=0.0)}),
        cartpole_ppo("time limit as death", settings=death),
        cartpole_ppo("observations normalised", settings=normalised),
        cartpole_ppo("states discounted", settings=discounted),
        cartpole_ppo("float64", settings={"dtype": "float64"}),
        cartpole_trpo(),
        cartpole_trpo("advantages not normalised", changes=raw),
        cartpole_trpo("damping 0.001", changes={"damping": 1e-3}),
        cartpole_trpo("damping 1", changes={"damping": 1.0}),
        cartpole_trpo("damping shortens the step", replaced=DAMPED_STEP),
        cartpole_trpo("3 CG iterations", changes={"cg_iterations": 3}),
        cartpole_trpo("max_kl 0.003", changes={"max_kl": 0.003}),
        cartpole_trpo("max_kl 0.03", changes={"max_kl": 0.03}),
        cartpole_trpo("line search without KL check", replaced=unchecked),
        cartpole_trpo("line search accepts 1.5 max_kl", replaced=looser),
        cartpole_trpo("failed search: last try taken", replaced=moving),
        cartpole_trpo("KL(new || old) in the line search", replaced=reversed_kl),
        cartpole_trpo("time limit as death", settings=death),
        cartpole_gradient(),
        cartpole_gradient("advantages not normalised", changes=raw),
        *(
            cartpole_gradient(
                f"reward-to-go, baseline {baseline}",
                settings={"advantages": minirl.RewardToGo(discount=0.99, baseline=baseline)},
            )
            for baseline in (None, "batch", "critic")
        ),
        cartpole_gradient("states discounted", settings=discounted),
        pendulum_ppo(),
        pendulum_ppo("rewards not scaled", settings={"reward_transform": None}),
        pendulum_ppo("observations normalised", settings=normalised),
        pendulum_ppo("time limit as death", settings=pendulum_death),
        pendulum_ppo("log-probability of the clipped action", kind=ClippedActions),
        pendulum_ppo("discount 0.99", settings=far),
        pendulum_ppo("learning rate 0.03, not annealed", changes=fast),
        pendulum_ppo("learning rate 0.03, log_std at least -0.5", changes=fast, settings=bound),
        pendulum_ppo(
            "learning rate 0.03, stops at a KL of 0.02", changes={**fast, "target_kl": 0.02}
        ),
        car_ppo(),
        car_ppo("log_std starts at 0", settings=from_zero),
        car_ppo("log_std starts at 0, at least -0.5", settings={**from_zero, **bound}),
    ]


Key = tuple[str, str, str, int]


def run(item: Key) -> list[str]:
    """Train one choice with one seed: the values of its row."""
    *key, seed = item
    choice = next(one for one in choices() if one.key == tuple(key))
    algorithm, settings = choice.variant()
    steps = STEPS[choice.environment]
    with choice.replacement():
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


LOOKS = {"worse": (VERMILLION, "v"), "better": (BLUE, "^"), "cannot tell": (GREY, "o")}
ALL = "all"  # the token task has one panel for all algorithms
PANELS = {  # part of the file's name: the question that the figure answers, and its panel
    "ppo": ("What matters for PPO on CartPole?", ("CartPole-v1", "ppo")),
    "trpo": ("What matters for TRPO on CartPole?", ("CartPole-v1", "trpo")),
    "policy-gradient": (
        "What matters for the policy gradient on CartPole?",
        ("CartPole-v1", "policy-gradient"),
    ),
    "pendulum": ("What matters for PPO on Pendulum?", ("Pendulum-v1", "ppo")),
    "car": ("What matters for PPO on MountainCarContinuous?", ("MountainCarContinuous-v0", "ppo")),
    "tokens": ("What matters on the token task?", (rlhf_choices.ENVIRONMENT, ALL)),
}
MOST = 10  # choices in the first figure
# Scores of an untrained policy; a fraction of the optimum is 0 there by definition.
UNTRAINED = {"CartPole-v1": 22.5, "Pendulum-v1": -1232.8, rlhf_choices.ENVIRONMENT: 0.0}
TASKS = {rlhf_choices.ENVIRONMENT: "token task"}


def share_of_learning(effect: Effect, default: float) -> np.ndarray:
    """The difference and its interval as a share of what the default learns."""
    comparison = effect.comparison
    assert comparison is not None
    learned = default - UNTRAINED[effect.choice.environment]
    return np.array([comparison.iqm_difference, *comparison.difference_interval]) / learned


def largest(found: list[Effect], count: int = MOST) -> list[tuple[Effect, np.ndarray]]:
    """The choices whose effect is certain and largest, each with its share of learning.

    Of choices that only vary another one ("KL in the loss, not divided"), the first counts.
    """
    defaults = {
        effect.choice.key[:2]: float(interquartile_mean(effect.scores))
        for effect in found
        if effect.choice.name == DEFAULT
    }
    certain = [effect for effect in found if effect.verdict in ("worse", "better")]
    ranked = [
        (effect, share_of_learning(effect, defaults[effect.choice.key[:2]])) for effect in certain
    ]
    first: dict[tuple[str, str, str], tuple[Effect, np.ndarray]] = {}
    for effect, share in ranked:
        environment, algorithm, name = effect.choice.key
        first.setdefault((environment, algorithm, name.split(",")[0]), (effect, share))
    return sorted(first.values(), key=lambda pair: -abs(pair[1][0]))[:count]


def draw(path: Path) -> None:
    """The figure of the largest effects, and beside it one figure per question.

    Their names are that of `path` with the keys of `PANELS` appended to its stem.
    """
    found = [*stored_effects(), *rlhf_choices.stored_effects()]
    draw_largest(path, largest(found))
    panels: dict[tuple[str, str], list[Effect]] = {}
    for effect in found:
        environment, algorithm, name = effect.choice.key
        if name != DEFAULT:
            panel = environment, ALL if environment == rlhf_choices.ENVIRONMENT else algorithm
            panels.setdefault(panel, []).append(effect)
    for part, (question, key) in PANELS.items():
        panel_effects = sorted(panels[key], key=middle)
        figure = Figure(figsize=(8.5, 1.6 + 0.32 * len(panel_effects)), layout="constrained")
        draw_panel(figure.subplots(), key, panel_effects)
        finish(figure, question, path.with_stem(f"{path.stem}-{part}"))


def middle(effect: Effect) -> float:
    """The difference to the default, by which the lines of a panel are sorted."""
    assert effect.comparison is not None
    return effect.comparison.iqm_difference


def finish(figure: Figure, title: str, path: Path) -> None:
    """Add the legend of the verdicts and the title, and save the figure."""
    handles = [
        Line2D([], [], color=color, marker=marker, linestyle="none", label=verdict)
        for verdict, (color, marker) in LOOKS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    figure.savefig(path, dpi=130)


def draw_largest(path: Path, found: list[tuple[Effect, np.ndarray]]) -> None:
    """One line per choice, with the share of learning that it costs or adds."""
    figure = Figure(figsize=(8.5, 1.9 + 0.36 * len(found)), layout="constrained")
    axes = figure.subplots()
    for place, (effect, (share, low, high)) in enumerate(found):
        color, marker = LOOKS[effect.verdict]
        axes.plot([100 * low, 100 * high], [place, place], color=color, linewidth=2)
        axes.plot(100 * share, place, color=color, marker=marker, markersize=8)
        environment, algorithm, name = effect.choice.key
        task = TASKS.get(environment, environment.split("-")[0])
        name_line(axes, f"{name} ({algorithm}, {task})", place)
    axes.set(yticks=[], ylim=(len(found) - 0.4, -0.6))
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xscale("symlog", linthresh=100)
    ticks = [-400, -200, -100, -50, 0, 50]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlim(-450, 50)
    axes.minorticks_off()
    axes.set_xlabel("% of what the default learns; logarithmic below -100")
    axes.spines[["top", "right", "left"]].set_visible(False)
    finish(figure, f"The {len(found)} choices that matter most", path)


def name_line(axes: Any, text: str, place: int) -> None:
    """Write the name of a line to the left of the axes."""
    axes.annotate(
        text,
        (0, place),
        xycoords=("axes fraction", "data"),
        xytext=(-6, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=11,
    )


def draw_panel(axes: Any, key: tuple[str, str], panel: list[Effect]) -> None:
    """One line per effect: a marker at the difference, a bar over its interval, and the name."""
    _, algorithm = key
    token_task = algorithm == ALL
    for place, effect in enumerate(panel):
        assert effect.comparison is not None
        color, marker = LOOKS[effect.verdict]
        axes.plot(effect.comparison.difference_interval, [place, place], color=color, linewidth=2)
        axes.plot(effect.comparison.iqm_difference, place, color=color, marker=marker, markersize=7)
        prefix = f"{effect.choice.algorithm}: " if token_task else ""
        name_line(axes, prefix + effect.choice.name, place)
    axes.set(yticks=[], ylim=(len(panel) - 0.4, -0.6))
    axes.axvline(0, color="black", linewidth=0.8)
    score = "fraction of the optimum, logarithmic beyond 0.01" if token_task else "mean return"
    axes.set_xlabel(f"difference to the default in {score}")
    if token_task:  # from thousandths to 3
        axes.set_xscale("symlog", linthresh=0.01)
        axes.set_xticks([-1, -0.1, -0.01, 0, 0.01], ["-1", "-0.1", "-0.01", "0", "0.01"])
        axes.set_xlim(-8, 0.015)
    axes.spines[["top", "right", "left"]].set_visible(False)


if __name__ == "__main__":
    study.main(__doc__, STUDY, run, wanted, table, draw=draw, seeds=10)
