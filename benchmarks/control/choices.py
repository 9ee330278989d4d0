"""What each silent choice of an implementation is worth: one changed at a time, ten seeds.

    python -m benchmarks.control.choices            (about half an hour on one core)
    python -m benchmarks.control.choices --table    (the table of docs/reference/choices.md)
    python -m benchmarks.control.choices --figure docs/reference/choices.png

The score of a run is the mean over its environment steps of the 100-episode mean return. It
reflects how fast a run learns as well as where it ends. The figure also shows the token task's
choices, from rlhf/choices.py.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import minirl
from benchmarks import study
from benchmarks.control.learning_curves import average_return
from benchmarks.rlhf import choices as rlhf_choices
from minirl import training
from minirl.advantages import AdvantageEstimator
from minirl.algorithms import trpo
from minirl.algorithms.policy_gradient import step_report
from minirl.batch import Batch, Rollout
from minirl.experiments.statistics import compare_scores, interquartile_mean
from minirl.optimizers import scheduled

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


@contextlib.contextmanager
def without_kl_check() -> Iterator[None]:
    search = trpo.trust_region_search

    def unchecked(*arguments: Any, max_kl: float, **others: Any) -> Any:
        return search(*arguments, max_kl=np.inf, **others)

    with mock.patch.object(trpo, "trust_region_search", unchecked):
        yield


@contextlib.contextmanager
def with_a_looser_bound() -> Iterator[None]:
    search = trpo.trust_region_search

    def looser(*arguments: Any, max_kl: float, **others: Any) -> Any:
        return search(*arguments, max_kl=1.5 * max_kl, **others)

    with mock.patch.object(trpo, "trust_region_search", looser):
        yield


@contextlib.contextmanager
def with_failed_steps_taken() -> Iterator[None]:
    """Where no try was accepted, the last and smallest one is taken nevertheless."""
    search = trpo.trust_region_search

    def stubborn(*arguments: Any, shrink: float, tries: int, **others: Any) -> Any:
        found = search(*arguments, shrink=shrink, tries=tries, **others)
        return found if found.fraction > 0 else found._replace(fraction=shrink ** (tries - 1))

    with mock.patch.object(trpo, "trust_region_search", stubborn):
        yield


@contextlib.contextmanager
def with_a_stray_minibatch() -> Iterator[None]:
    """Parts of the preset's number and, but for a row or two, its size; a few rows are left over.

    The last minibatch holds them, `STRAY` or hardly more, and moves policy and critic like another.
    """

    def exact(batch: Batch, size: int, rng: np.random.Generator) -> Iterator[Any]:
        order = rng.permutation(len(batch))
        size = (len(batch) - STRAY) // max(1, round(len(batch) / size))
        for start in range(0, len(batch), size):
            rows = order[start : start + size]
            part = batch.rows(rows)
            yield rows, replace(part, weight=part.weight * (len(batch) / len(rows)))

    with mock.patch.object(Batch, "minibatches", exact):
        yield


def joint_stage(
    batch: Batch,
    learner: training.Learner,
    algorithm: minirl.PPO,
    settings: minirl.Settings,
    rng: np.random.Generator,
    progress: float,
) -> tuple[training.Learner, dict[str, float]]:
    """Policy loss plus mean (V - R)^2 / 2, one loss: PPO's minibatches, rate and epochs for both.

    The gradient of both together is shortened to a norm of 0.5. Adam works entry by entry, so that
    one optimiser of both is two.
    """
    state, critic_state, fit = learner.state, learner.critic_state, settings.critic_fit
    rate = scheduled(algorithm.learning_rate, progress)
    advantages = batch.normalized_advantages()
    old, _ = state.policy.forward(batch.observations)
    for _ in range(algorithm.epochs):
        for rows, minibatch in batch.minibatches(algorithm.minibatch_size, rng):
            of_policy = (state, minibatch, advantages[rows], None, progress)
            of_critic = (critic_state, minibatch, rate)
            norms = algorithm.step(*of_policy)[1], fit.step(*of_critic)[2]
            share = min(1.0, JOINT_NORM / np.hypot(*norms))
            limits = [{"max_gradient_norm": share * norm} for norm in norms]
            state = replace(algorithm, **limits[0]).step(*of_policy)[0]
            critic_state = replace(fit, **limits[1]).step(*of_critic)[0]
    new, _ = state.policy.forward(batch.observations)
    learner = replace(learner, state=state, critic_state=critic_state)
    return learner, step_report(old, new, batch, advantages)


@contextlib.contextmanager
def with_a_joint_loss() -> Iterator[None]:
    with mock.patch.object(training, "optimisation_stage", joint_stage):
        yield


@contextlib.contextmanager
def with_kl_reversed() -> Iterator[None]:
    kl = minirl.Categorical.kl

    def reverse(self: Any, other: Any) -> np.ndarray:
        return kl(other, self)

    search = trpo.trust_region_search

    def reversed_search(*arguments: Any, **others: Any) -> Any:
        with mock.patch.object(minirl.Categorical, "kl", reverse):
            return search(*arguments, **others)

    with mock.patch.object(trpo, "trust_region_search", reversed_search):
        yield


@contextlib.contextmanager
def with_damping_in_the_step() -> Iterator[None]:
    full_step = trpo.full_step

    def damped(solution: Any, damping: float, max_kl: float) -> np.ndarray:
        return full_step(solution, 0.0, max_kl)

    with mock.patch.object(trpo, "full_step", damped):
        yield


@dataclass(frozen=True, kw_only=True)
class WhitenedPerMinibatch(minirl.PPO):
    """Advantages normalised within each minibatch instead of the batch."""

    def step(
        self, state: Any, minibatch: Batch, advantages: np.ndarray, *others: Any
    ) -> tuple[Any, float, float]:
        whitened = replace(minibatch, advantages=advantages).normalized_advantages()
        return super().step(state, minibatch, whitened, *others)


@dataclass(frozen=True, kw_only=True)
class ClippedActions(minirl.PPO):
    """Learns from the action that Pendulum received, as if the Gaussian had drawn it."""

    def update(self, state: Any, batch: Batch, *others: Any) -> tuple[Any, dict[str, float]]:
        received = np.clip(batch.actions, -2, 2)
        old, _ = state.policy.forward(batch.observations)
        batch = replace(batch, actions=received, log_probs=old.log_prob(received))
        return super().update(state, batch, *others)


@dataclass(frozen=True)
class Choice:
    """One departure from an environment's preset."""

    environment: str
    algorithm: str
    name: str
    kind: type | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    during: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext

    def train(self, seed: int) -> minirl.Result:
        default = minirl.default_algorithm(self.algorithm, self.environment)
        kind = self.kind or type(default)
        own = {item.name: getattr(default, item.name) for item in fields(default)}
        algorithm = kind(**{**own, **self.changes})
        settings = replace(
            minirl.default_settings(self.environment, self.algorithm), **self.settings
        )
        with self.during():
            return minirl.train(
                self.environment,
                algorithm,
                total_steps=STEPS[self.environment],
                seed=seed,
                settings=settings,
            )


def choices() -> list[Choice]:
    gae = minirl.GAE(discount=0.99, lam=0.95)
    pendulum_gae = minirl.GAE(discount=0.9, lam=0.95)
    fit = minirl.CriticFit()
    found = []

    def add(environment: str, algorithm: str, name: str, **others: Any) -> None:
        found.append(Choice(environment, algorithm, name, **others))

    cartpole, pendulum = "CartPole-v1", "Pendulum-v1"
    add(cartpole, "ppo", "default")
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

    add(cartpole, "trpo", "default")
    add(cartpole, "trpo", "advantages not normalised", changes={"normalize_advantages": False})
    add(cartpole, "trpo", "damping 0.001", changes={"damping": 1e-3})
    add(cartpole, "trpo", "damping 1", changes={"damping": 1.0})
    add(cartpole, "trpo", "damping shortens the step", during=with_damping_in_the_step)
    add(cartpole, "trpo", "3 CG iterations", changes={"cg_iterations": 3})
    add(cartpole, "trpo", "max_kl 0.003", changes={"max_kl": 0.003})
    add(cartpole, "trpo", "max_kl 0.03", changes={"max_kl": 0.03})
    add(cartpole, "trpo", "line search without KL check", during=without_kl_check)
    add(cartpole, "trpo", "line search accepts 1.5 max_kl", during=with_a_looser_bound)
    add(cartpole, "trpo", "failed search: last try taken", during=with_failed_steps_taken)
    add(cartpole, "trpo", "KL(new || old) in the line search", during=with_kl_reversed)
    add(cartpole, "trpo", "time limit as death", settings={"advantages": TimeLimitIsDeath(gae)})

    add(cartpole, "policy-gradient", "default")
    unnormalised = {"normalize_advantages": False}
    add(cartpole, "policy-gradient", "advantages not normalised", changes=unnormalised)
    for baseline in (None, "batch", "critic"):
        estimator = minirl.RewardToGo(discount=0.99, baseline=baseline)
        label = f"reward-to-go, baseline {baseline}"
        add(cartpole, "policy-gradient", label, settings={"advantages": estimator})
    add(cartpole, "policy-gradient", "states discounted", settings={"discount_states": True})

    add(pendulum, "ppo", "default")
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
    add(car, "ppo", "default")
    add(car, "ppo", "log_std starts at 0", settings=from_zero)
    add(car, "ppo", "log_std starts at 0, at least -0.5", settings={**from_zero, **bound})
    return found


def score(history: minirl.History) -> tuple[float, float, float]:
    """The mean return over the steps of a run, its last value, and the mean KL of an update."""
    columns = history.columns()
    return average_return(columns), history.final_return(), float(columns["kl"].mean())


Key = tuple[str, str, str, int]


def run(item: Key) -> list[str]:
    """Train one choice with one seed: the values of its row."""
    *name, seed = item
    choice = next(one for one in choices() if [one.environment, one.algorithm, one.name] == name)
    return [f"{number:.6g}" for number in score(choice.train(seed).history)]


def wanted(seeds: int) -> list[Key]:
    """All runs, seed by seed."""
    return [
        (choice.environment, choice.algorithm, choice.name, seed)
        for seed in range(seeds)
        for choice in choices()
    ]


@dataclass(frozen=True)
class Effect:
    """A choice against the default: interquartile means, 95 % interval of their difference."""

    environment: str
    algorithm: str
    name: str
    score: float
    difference: float = 0.0
    low: float = 0.0
    high: float = 0.0
    verdict: str = ""


def effects() -> list[Effect]:
    """Of every choice, in order; those called default have no difference."""
    scores = {
        key: study.numbers(rows, "score")
        for key, rows in study.grouped(STUDY.rows(), *STUDY.key[:3]).items()
    }
    return [
        effect((choice.environment, choice.algorithm, choice.name), scores) for choice in choices()
    ]


def effect(key: tuple[str, str, str], scores: dict[tuple[str, str, str], list[float]]) -> Effect:
    found, default = scores[key], scores[key[0], key[1], "default"]
    middle = interquartile_mean(found)
    if key[2] == "default":
        return Effect(*key, middle)
    pair = compare_scores(found, default, np.random.default_rng(0))
    verdict = rlhf_choices.verdict(pair)
    return Effect(*key, middle, pair.iqm_difference, *pair.difference_interval, verdict)


def table() -> str:
    lines = []
    for found in effects():
        label = found.name.replace("|", r"\|")
        difference = ""
        if found.name != "default":
            middle, low, high = map(signed, (found.difference, found.low, found.high))
            difference = f"{middle} [{low}, {high}]"
        score = f"{found.score:.0f}"
        lines.append([found.environment, found.algorithm, label, score, difference, found.verdict])
    head = ["environment", "algorithm", "choice", "score", "difference to the default", "verdict"]
    return study.markdown(head, lines)


def signed(points: float) -> str:
    """Rounded to a point; below half a point to one digit, on which a verdict may hang."""
    return f"{points:+.0f}" if abs(points) > 0.5 else f"{points:+.1g}"


# Okabe and Ito's colours, told apart by shape too.
LOOKS = {"worse": ("#D55E00", "v"), "better": ("#0072B2", "^"), "cannot tell": ("#666666", "o")}


def draw(path: Path) -> None:
    """One figure of all effects, a panel for each task and algorithm, each in its own units."""
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    columns = [
        [("CartPole-v1", "ppo")],
        [("CartPole-v1", "trpo"), ("CartPole-v1", "policy-gradient")],
        [("Pendulum-v1", "ppo"), ("MountainCarContinuous-v0", "ppo")],
    ]
    panels: dict[tuple[str, str], list[Effect]] = {}
    for found in effects():
        if found.name != "default":
            panels.setdefault((found.environment, found.algorithm), []).append(found)
    token_scores = rlhf_choices.scores()
    for found in (effect(key, token_scores) for key in token_scores):
        if found.name != "default":
            panels.setdefault((found.environment, "all"), []).append(found)
    columns[2].append((rlhf_choices.TASK, "all"))
    figure = plt.figure(figsize=(15, 7.5), layout="constrained")
    for half, keys in zip(figure.subfigures(1, 3), columns, strict=True):
        heights = [len(panels[key]) + 1.5 for key in keys]
        for axes, key in zip(
            np.atleast_1d(half.subplots(len(keys), 1, height_ratios=heights)), keys, strict=True
        ):
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


def draw_panel(axes: Any, key: tuple[str, str], found: list[Effect]) -> None:
    for place, one in enumerate(found):
        colour, marker = LOOKS[one.verdict]
        axes.plot([one.low, one.high], [place, place], color=colour)
        axes.plot(one.difference, place, color=colour, marker=marker)
        name = one.name if key[1] != "all" else f"{one.algorithm}: {one.name}"
        axes.annotate(
            name,
            (0, place),
            xycoords=("axes fraction", "data"),
            xytext=(-6, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=9,
        )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(yticks=[], ylim=(len(found) - 0.4, -0.6))
    token_task = key[0] == rlhf_choices.TASK
    axes.set_title("token task" if token_task else f"{key[0]}, {key[1]}", fontsize=10)
    score = "fraction of optimum\n(logarithmic beyond 0.01)" if token_task else "mean return"
    axes.set_xlabel(f"difference in {score}")
    if token_task:  # from thousandths to 3
        axes.set_xscale("symlog", linthresh=0.01)
        axes.set_xticks([-1, -0.1, -0.01, 0, 0.01], ["-1", "-0.1", "-0.01", "0", "0.01"])
        axes.set_xlim(-8, 0.015)
    axes.spines[["top", "right", "left"]].set_visible(False)


def main() -> None:
    """Compute the missing runs, print the table."""
    study.command_line(
        __doc__,
        complete=lambda given: STUDY.complete(run, wanted(given.seeds), given.workers),
        table=table,
        draw=draw,
        seeds=10,
    )


if __name__ == "__main__":
    main()
