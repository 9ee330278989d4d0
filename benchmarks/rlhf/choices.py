"""The effect of implementation choices on the token task: one is changed at a time.

    python -m benchmarks.rlhf.choices            (about ten minutes on one core)
    python -m benchmarks.rlhf.choices --table    (for docs/rlhf/rlhf.md and reference/choices.md)

The reward is the gold reward minus beta KL with beta = 0.3. Each preset with one change runs on ten
corpora, each with a seed of its own. Scores are fractions of the optimum.
"""

from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import study
from benchmarks.ablation import Choice, Effect, effects
from benchmarks.rlhf.case import Case
from minirl import PPO, rlhf
from minirl.advantages import GAE, GroupNormalized, LeaveOneOut, RewardToGo, group_returns
from minirl.algorithms import ppo
from minirl.algorithms.ppo import PPOState, Unclipped
from minirl.batch import Batch, Rollout
from minirl.experiments.alignment.chain import SENTENCES
from minirl.experiments.statistics import interquartile_mean
from minirl.policy import Policy
from minirl.rlhf import dpo
from minirl.rlhf.align import ENVIRONMENT
from minirl.rlhf.dpo import path_gradient, path_log_probs

STUDY = study.Study(
    study.RESULTS / "rlhf_choices.csv", ("algorithm", "choice", "corpus"), ("fraction",)
)
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


@dataclass(frozen=True, eq=False, kw_only=True)
class WithReference(PPOState):
    """PPO's state, with the reference model; `beta` is the weight of its KL in the loss."""

    reference: Policy


@dataclass(frozen=True, kw_only=True)
class KLInTheLoss(PPO):
    """The loss contains beta KL(pi || pi_ref) of visited contexts; the rewards contain no KL.

    With l_a = log(pi_a / pi_ref,a): KL = sum_a pi_a l_a and d KL / d eta_a = pi_a (l_a - KL), since
    sum_a pi_a d log pi_a = 0. This is the whole gradient for given contexts. It leaves out that a
    token also decides which contexts, and therefore which penalties, come later. A penalty in the
    reward is credited to every token before it. Where advantages are divided by their standard
    deviation, beta is divided by it too.
    """

    def init(self, policy: Policy) -> WithReference:
        return WithReference(**vars(super().init(policy)), reference=policy)

    def update(self, state: Any, batch: Batch, *others: Any) -> tuple[Any, dict[str, float]]:
        spread = float(batch.advantages.std()) if self.normalize_advantages else 1.0
        return super().update(replace(state, beta=BETA / spread), batch, *others)

    def step(self, state: Any, minibatch: Batch, old: Any) -> tuple[Any, float, float]:
        def penalty(reference: Any, new: Any, _: np.ndarray, beta: float) -> Any:
            return self.kl_term(new, reference, minibatch, beta)

        reference = state.reference(minibatch.observations)
        with mock.patch.object(ppo, "kl_to_old_policy", penalty):
            stepped, *numbers = super().step(state, minibatch, reference)
        return replace(state, policy=stepped.policy, optimizer=stepped.optimizer), *numbers

    def kl_term(
        self, new: Any, reference: Any, minibatch: Batch, beta: float
    ) -> tuple[float, np.ndarray]:
        """The term of the loss, and its derivative (N, V) with respect to the new eta."""
        weighted = beta * minibatch.weight
        d_eta = weighted[:, None] * new.grad_kl(reference, wrt="self")
        return float(weighted @ new.kl(reference)), d_eta


@dataclass(frozen=True, kw_only=True)
class K3InTheLoss(KLInTheLoss):
    """The same with k3 of the sampled token, as GRPO has it (Shao et al. 2024, equation 4)."""

    def kl_term(
        self, new: Any, reference: Any, minibatch: Batch, beta: float
    ) -> tuple[float, np.ndarray]:
        """The derivative of k3 with respect to log pi is 1 - pi_ref / pi."""
        log_ratio = new.log_prob(minibatch.actions) - reference.log_prob(minibatch.actions)
        weighted = beta * minibatch.weight
        d_log_prob = -weighted * np.expm1(-log_ratio)
        d_eta = d_log_prob[:, None] * new.grad_log_prob(minibatch.actions)
        return float(weighted @ rlhf.k3(log_ratio)), d_eta


@dataclass(frozen=True)
class SampleDeviation(GroupNormalized):
    """Group returns divided by their sample standard deviation, with k - 1 instead of k."""

    def __call__(self, rollout: Rollout) -> tuple[np.ndarray, np.ndarray]:
        advantages, returns = super().__call__(rollout)
        _, _, sizes = group_returns(rollout)
        return advantages * np.sqrt((sizes - 1) / sizes), returns


@dataclass(frozen=True, kw_only=True)
class SparseAdam(PPO):
    """Adam in the contexts of the minibatch only; other parameters and moments are unchanged.

    As in other lazy Adams, the bias correction counts all steps.
    """

    def init(self, policy: Policy) -> Any:
        """Moments of all parameters, which `Adam` would keep only where there are gradients."""
        state = super().init(policy)
        entries = np.arange(policy.parameters.size)
        return replace(state, optimizer=state.optimizer._replace(entries=entries))

    def step(self, state: Any, minibatch: Batch, *others: Any) -> tuple[Any, float, float]:
        stepped, *numbers = super().step(state, minibatch, *others)
        table = state.policy.network
        visited = np.zeros((table.states, table.outputs), dtype=bool)
        visited[minibatch.observations] = True
        mean, square, theta = (
            np.where(visited.ravel(), after, before)
            for after, before in (
                (stepped.optimizer.mean, state.optimizer.mean),
                (stepped.optimizer.square, state.optimizer.square),
                (stepped.policy.parameters, state.policy.parameters),
            )
        )
        optimizer = stepped.optimizer._replace(mean=mean, square=square)
        policy = state.policy.with_parameters(theta)
        return replace(stepped, policy=policy, optimizer=optimizer), *numbers


def averaged_log_probs(policy: Policy, paths: Any) -> tuple[np.ndarray, Any]:
    """`path_log_probs`, as means over the tokens of a sentence."""
    sums, cache = path_log_probs(policy, paths)
    return sums / paths.valid.sum(axis=1), cache


def averaged_gradient(policy: Policy, paths: Any, cache: Any, d: np.ndarray) -> np.ndarray:
    """`path_gradient`, for these means."""
    return path_gradient(policy, paths, cache, d / paths.valid.sum(axis=1))


AVERAGED = {"path_log_probs": averaged_log_probs, "path_gradient": averaged_gradient}


@dataclass(frozen=True, kw_only=True)
class AveragedDPO(rlhf.DPO):
    """DPO whose log-ratios are means over the tokens of a sentence instead of sums."""

    def fit(self, *arguments: Any, **named: Any) -> dpo.DPOResult:
        with mock.patch.multiple(dpo, **AVERAGED):
            return super().fit(*arguments, **named)


def choices() -> list[Choice]:
    """Every choice, in the order of the table; the default of each algorithm comes first."""
    names = "ppo", "trpo", "policy-gradient", "grpo", "dpo"
    ppo, trpo, gradient, grpo, dpo = (partial(Choice, ENVIRONMENT, name) for name in names)
    undivided = {"advantages": LeaveOneOut()}
    return [
        ppo(),
        ppo("constant learning rate 0.05", changes={"learning_rate": 0.05}),
        ppo("advantages not whitened", changes={"normalize_advantages": False}),
        ppo("lambda 1", settings={"advantages": GAE(discount=1.0, lam=1.0)}),
        ppo("lambda 0", settings={"advantages": GAE(discount=1.0, lam=0.0)}),
        ppo("not clipped", changes={"objective": Unclipped()}),
        ppo("tokens averaged in a sentence", kind=AveragedTokens),
        ppo("KL in the loss", kind=KLInTheLoss),
        ppo("sparse Adam", kind=SparseAdam),
        trpo(),
        trpo("damping 0.1", changes={"damping": 0.1}),
        trpo("max_kl 0.05", changes={"max_kl": 0.05}),
        gradient(),
        gradient("no baseline", settings={"advantages": RewardToGo(discount=1.0)}),
        grpo(),
        grpo("tokens averaged in a sentence", kind=AveragedTokens),
        grpo("KL in the loss", kind=KLInTheLoss),
        grpo("k3 in the loss", kind=K3InTheLoss),
        grpo("returns not divided", settings=undivided),
        grpo("KL in the loss, not divided", kind=KLInTheLoss, settings=undivided),
        grpo("k3 in the loss, not divided", kind=K3InTheLoss, settings=undivided),
        grpo("sample standard deviation", settings={"advantages": SampleDeviation()}),
        dpo(kind=rlhf.DPO),
        dpo("log-ratios averaged", kind=AveragedDPO),
    ]


@cache
def case(corpus: int) -> Case:
    """The reference model that is fine-tuned on a corpus."""
    return Case(np.random.default_rng(corpus), BETA)


def run(item: tuple[str, str, int]) -> list[str]:
    """Align one variant on one corpus: the fraction of the optimum."""
    algorithm, name, corpus = item
    choice = next(one for one in choices() if one.key[1:] == (algorithm, name))
    policy = prefer(choice, corpus) if algorithm == "dpo" else reinforce(choice, corpus)
    return [f"{case(corpus).objective.fraction_of_optimum(policy):.5f}"]


def prefer(choice: Choice, corpus: int) -> Policy:
    """DPO from the annotator's probabilities of 3,000 pairs of the reference's responses."""
    current, rng = case(corpus), np.random.default_rng([corpus, PAIRS])
    pairs = rlhf.sample_pairs(current.task, current.reference, PAIRS, rng)
    soft = rlhf.Annotator().soft(pairs, current.gold)
    return current.fit(choice.kind(beta=BETA), soft, rng)


def reinforce(choice: Choice, corpus: int) -> Policy:
    """Reinforcement learning from the gold reward minus beta KL."""
    algorithm, settings = choice.variant()
    beta = None if isinstance(algorithm, KLInTheLoss) else BETA
    options = {"sentences": SENTENCES[choice.algorithm], "beta": beta, "seed": corpus}
    return case(corpus).align(algorithm, settings=settings, **options).policy


def wanted() -> list[tuple[str, str, int]]:
    """All runs, corpus by corpus."""
    return [(*choice.key[1:], corpus) for corpus in CORPORA for choice in choices()]


def stored_effects() -> list[Effect]:
    """The effect of every choice, from the stored runs."""
    runs = study.grouped(STUDY.rows(), "algorithm", "choice")
    scores = {(ENVIRONMENT, *key): study.numbers(rows, "fraction") for key, rows in runs.items()}
    return effects(choices(), scores)


def table() -> str:
    """Interquartile mean and the smallest over the corpora, and the difference to the default."""
    lines = []
    for effect in stored_effects():
        _, algorithm, name = effect.choice.key
        scores = f"{interquartile_mean(effect.scores):.3f}", f"{min(effect.scores):.3f}"
        difference = effect.difference("{:+.4f}".format)
        lines.append([algorithm, name, *scores, difference, effect.verdict])
    head = ["algorithm", "choice", "fraction of the optimum", "smallest"]
    return study.markdown([*head, "difference to the default", "verdict"], lines)


if __name__ == "__main__":
    study.main(__doc__, STUDY, run, wanted, table)
