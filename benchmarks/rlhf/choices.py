"""What the choices of an implementation are worth on the token task: one changed at a time.

    python -m benchmarks.rlhf.choices            (about ten minutes on one core)
    python -m benchmarks.rlhf.choices --table    (for docs/rlhf/rlhf.md and reference/choices.md)

Gold reward, beta = 0.3, the presets with one thing changed; ten corpora, each with its own seed. A
number is the fraction of the optimum.
"""

from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import study
from benchmarks.rlhf.case import reference_model
from minirl import PPO, rlhf
from minirl.advantages import GAE, GroupNormalized, LeaveOneOut, RewardToGo, group_returns
from minirl.algorithms import ppo
from minirl.algorithms.ppo import PPOState, Unclipped
from minirl.batch import Batch, Rollout
from minirl.experiments.alignment.run import SENTENCES
from minirl.experiments.statistics import PairComparison, compare_scores, interquartile_mean
from minirl.policy import Policy
from minirl.rlhf import dpo
from minirl.rlhf.align import ENVIRONMENT
from minirl.settings import default_algorithm, default_settings

STUDY = study.Study(
    study.RESULTS / "rlhf_choices.csv", ("algorithm", "choice", "corpus"), ("fraction",)
)
TASK = "token task"
CORPORA = range(200, 210)
BETA = 0.3
PAIRS = 3_000


@dataclass(frozen=True, kw_only=True)
class AveragedTokens(PPO):
    """Losses averaged over the tokens of a sentence instead of summed: short ones count more."""

    def update(self, state: Any, batch: Batch, *others: Any) -> tuple[Any, dict[str, float]]:
        lengths = np.bincount(batch.episodes)[batch.episodes]
        batch = replace(batch, weight=(batch.weight / lengths).astype(batch.weight.dtype))
        return super().update(state, batch, *others)


@dataclass(frozen=True, eq=False)
class WithReference(PPOState):
    """PPO's state, with the model that the loss refers to and the weight of the KL in it."""

    reference: Policy
    coefficient: float = BETA


@dataclass(frozen=True, kw_only=True)
class KLInTheLoss(PPO):
    """Rewards without the KL; the loss has beta KL(pi || pi_ref) of each visited context, exactly.

    With l_a = log(pi_a / pi_ref,a): KL = sum_a pi_a l_a and d KL / d eta_a = pi_a (l_a - KL), the
    whole gradient for given contexts, since sum_a pi_a d log pi_a = 0. That this token decides
    which contexts, and so which penalties, come later is left out; a penalty in the reward is
    credited to all that led there. Where advantages are divided by their standard deviation, so is
    beta.
    """

    def init(self, policy: Policy) -> WithReference:
        return WithReference(**vars(super().init(policy)), reference=policy)

    def update(self, state: Any, batch: Batch, *others: Any) -> tuple[Any, dict[str, float]]:
        spread = float(batch.advantages.std()) if self.normalize_advantages else 1.0
        return super().update(replace(state, coefficient=BETA / spread), batch, *others)

    def step(
        self, state: Any, minibatch: Batch, advantages: np.ndarray, old: Any, progress: float
    ) -> tuple[Any, float, float]:
        theirs, _ = state.reference.forward(minibatch.observations)

        def penalty(_: Any, new: Any, weight: np.ndarray, beta: float) -> tuple[float, np.ndarray]:
            return self.penalty(new, theirs, minibatch, state.coefficient)

        with mock.patch.object(ppo, "kl_penalty", penalty):
            found, *numbers = super().step(state, minibatch, advantages, theirs, progress)
        return replace(state, policy=found.policy, optimizer=found.optimizer), *numbers

    def penalty(
        self, new: Any, theirs: Any, minibatch: Batch, beta: float
    ) -> tuple[float, np.ndarray]:
        """The term of the loss and its derivative in the new eta (N, V)."""
        weighted = beta * minibatch.weight
        return float(weighted @ new.kl(theirs)), weighted[:, None] * new.grad_kl(theirs, wrt="self")


@dataclass(frozen=True, kw_only=True)
class K3InTheLoss(KLInTheLoss):
    """The same with k3 of the sampled token, as GRPO has it (Shao et al. 2024, equation 4)."""

    def penalty(
        self, new: Any, theirs: Any, minibatch: Batch, beta: float
    ) -> tuple[float, np.ndarray]:
        """The derivative of k3 in log pi is 1 - pi_ref / pi."""
        log_ratio = new.log_prob(minibatch.actions) - theirs.log_prob(minibatch.actions)
        weighted = beta * minibatch.weight
        d_log_prob = -weighted * np.expm1(-log_ratio)
        d_eta = d_log_prob[:, None] * new.grad_log_prob(minibatch.actions)
        return float(weighted @ rlhf.k3(log_ratio)), d_eta


@dataclass(frozen=True)
class SampleDeviation(GroupNormalized):
    """Group returns divided by their standard deviation with k - 1 below the root instead of k."""

    def __call__(self, rollout: Rollout) -> tuple[np.ndarray, np.ndarray]:
        advantages, returns = super().__call__(rollout)
        _, _, sizes = group_returns(rollout)
        return advantages * np.sqrt((sizes - 1) / sizes), returns


@dataclass(frozen=True, kw_only=True)
class SparseAdam(PPO):
    """Adam in the contexts of the minibatch only; the others wait, and so do their moments.

    Bias is corrected by the number of all steps, as lazy Adams do.
    """

    def step(self, state: Any, minibatch: Batch, *others: Any) -> tuple[Any, float, float]:
        found, *numbers = super().step(state, minibatch, *others)
        table = state.policy.network
        visited = np.zeros((table.states, table.outputs), dtype=bool)
        visited[minibatch.observations] = True

        def kept(after: np.ndarray, before: np.ndarray) -> np.ndarray:
            return np.where(visited.ravel(), after, before)

        mean = kept(found.optimizer.mean, state.optimizer.mean)
        square = kept(found.optimizer.square, state.optimizer.square)
        theta = kept(found.policy.parameters, state.policy.parameters)
        optimizer = found.optimizer._replace(mean=mean, square=square)
        policy = state.policy.with_parameters(theta)
        return replace(found, policy=policy, optimizer=optimizer), *numbers


@dataclass(frozen=True, kw_only=True)
class AveragedDPO(rlhf.DPO):
    """DPO whose log-ratios are means over the tokens of a sentence instead of sums."""

    def fit(self, *arguments: Any, **named: Any) -> dpo.DPOResult:
        log_probs, gradient = dpo.path_log_probs, dpo.path_gradient

        def averaged(policy: Policy, paths: Any) -> tuple[np.ndarray, Any]:
            sums, kept = log_probs(policy, paths)
            return sums / paths.valid.sum(axis=1), kept

        def its_gradient(policy: Policy, paths: Any, kept: Any, d: np.ndarray) -> np.ndarray:
            return gradient(policy, paths, kept, d / paths.valid.sum(axis=1))

        with (
            mock.patch.object(dpo, "path_log_probs", averaged),
            mock.patch.object(dpo, "path_gradient", its_gradient),
        ):
            return super().fit(*arguments, **named)


# (algorithm, choice) -> the class if it is not the default's, changed fields, changed settings
VARIANTS: dict[tuple[str, str], tuple[type | None, dict[str, Any], dict[str, Any]]] = {
    ("ppo", "default"): (None, {}, {}),
    ("ppo", "constant learning rate 0.05"): (None, {"learning_rate": 0.05}, {}),
    ("ppo", "advantages not whitened"): (None, {"normalize_advantages": False}, {}),
    ("ppo", "lambda 1"): (None, {}, {"advantages": GAE(discount=1.0, lam=1.0)}),
    ("ppo", "lambda 0"): (None, {}, {"advantages": GAE(discount=1.0, lam=0.0)}),
    ("ppo", "not clipped"): (None, {"objective": Unclipped()}, {}),
    ("ppo", "tokens averaged in a sentence"): (AveragedTokens, {}, {}),
    ("ppo", "KL in the loss"): (KLInTheLoss, {}, {}),
    ("ppo", "sparse Adam"): (SparseAdam, {}, {}),
    ("trpo", "default"): (None, {}, {}),
    ("trpo", "damping 0.1"): (None, {"damping": 0.1}, {}),
    ("trpo", "max_kl 0.05"): (None, {"max_kl": 0.05}, {}),
    ("policy-gradient", "default"): (None, {}, {}),
    ("policy-gradient", "no baseline"): (None, {}, {"advantages": RewardToGo(discount=1.0)}),
    ("grpo", "default"): (None, {}, {}),
    ("grpo", "tokens averaged in a sentence"): (AveragedTokens, {}, {}),
    ("grpo", "KL in the loss"): (KLInTheLoss, {}, {}),
    ("grpo", "k3 in the loss"): (K3InTheLoss, {}, {}),
    ("grpo", "returns not divided"): (None, {}, {"advantages": LeaveOneOut()}),
    ("grpo", "KL in the loss, not divided"): (KLInTheLoss, {}, {"advantages": LeaveOneOut()}),
    ("grpo", "k3 in the loss, not divided"): (K3InTheLoss, {}, {"advantages": LeaveOneOut()}),
    ("grpo", "sample standard deviation"): (None, {}, {"advantages": SampleDeviation()}),
    ("dpo", "default"): (rlhf.DPO, {}, {}),
    ("dpo", "log-ratios averaged"): (AveragedDPO, {}, {}),
}


@cache
def reference(corpus: int) -> Any:
    """The model fine-tuned on a corpus."""
    return reference_model(np.random.default_rng(corpus))


def run(item: tuple[str, str, int]) -> list[str]:
    """Align one variant on one corpus: the fraction of the optimum."""
    name, choice, corpus = item
    kind, own, common = VARIANTS[name, choice]
    task = rlhf.arithmetic()
    objective = rlhf.Objective(task, reference(corpus), task.utilities, BETA)
    policy = prefer(kind, corpus) if name == "dpo" else reinforce(name, kind, own, common, corpus)
    return [f"{objective.fraction_of_optimum(policy):.5f}"]


def prefer(kind: type[rlhf.DPO], corpus: int) -> Policy:
    """DPO from the annotator's probabilities of 3,000 pairs of the reference's answers."""
    task, rng = rlhf.arithmetic(), np.random.default_rng([corpus, PAIRS])
    pairs = rlhf.sample_pairs(task, reference(corpus), PAIRS, rng)
    preferences = rlhf.Annotator().soft(pairs, task.utilities)
    return kind(beta=BETA).fit(task, reference(corpus), preferences, rng).policy


def reinforce(
    name: str, kind: type | None, own: dict[str, Any], common: dict[str, Any], corpus: int
) -> Policy:
    """Reinforcement learning from the gold reward minus beta KL."""
    default = default_algorithm(name, ENVIRONMENT)
    values = {field.name: getattr(default, field.name) for field in fields(default)}
    task = rlhf.arithmetic()
    return rlhf.align(
        task,
        reference(corpus),
        task.utilities,
        (kind or type(default))(**{**values, **own}),
        sentences=SENTENCES[name],
        beta=None if kind in (KLInTheLoss, K3InTheLoss) else BETA,
        seed=corpus,
        settings=replace(default_settings(ENVIRONMENT, name), **common),
    ).policy


def scores() -> dict[tuple[str, str, str], list[float]]:
    """(task, algorithm, choice) -> the fractions of the stored runs."""
    runs = study.grouped(STUDY.rows(), "algorithm", "choice")
    return {(TASK, *key): study.numbers(runs.get(key, []), "fraction") for key in VARIANTS}


def verdict(pair: PairComparison) -> str:
    """Whether the first of a pair is better or worse than the second."""
    if not pair.distinguishable:
        return "cannot tell"
    return "better" if pair.iqm_difference > 0 else "worse"


def table() -> str:
    """Interquartile mean and the smallest over the corpora, and the difference to the default."""
    lines, everything = [], {key: fractions for key, fractions in scores().items() if fractions}
    for (_, algorithm, choice), fractions in everything.items():
        difference, judgement = "", ""
        if choice != "default":
            default = everything[TASK, algorithm, "default"]
            pair = compare_scores(fractions, default, np.random.default_rng(0))
            difference = study.with_interval(pair.iqm_difference, *pair.difference_interval, "+.4f")
            judgement = verdict(pair)
        cells = f"{interquartile_mean(fractions):.3f}", f"{min(fractions):.3f}"
        lines.append([algorithm, choice, *cells, difference, judgement])
    head = ["algorithm", "choice", "fraction of the optimum", "smallest"]
    return study.markdown([*head, "difference to the default", "verdict"], lines)


def main() -> None:
    """Compute the missing runs, print the table."""
    wanted = [(*key, corpus) for corpus in CORPORA for key in VARIANTS]
    study.command_line(
        __doc__,
        complete=lambda given: STUDY.complete(run, wanted, given.workers),
        table=table,
    )


if __name__ == "__main__":
    main()
