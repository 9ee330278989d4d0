"""Checks of notebook 8: the objective, the KL of a batch, shaped rewards, the optimum, k3."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax

from minirl.envs.arithmetic import arithmetic
from minirl.envs.token_generation import TokenGenerationVectorEnv
from minirl.exact import sequences
from minirl.exercises.verdict import Verdict, compare_function
from minirl.rlhf.kl import ReferenceKL, k1
from minirl.rlhf.language_model import full_prefix_policy
from minirl.rollout import collect_episodes

__all__ = ["objective", "sentence_kl", "shaped_rewards", "soft_optimum", "k3_loss_gradient"]


def objective(answer: Callable[..., Any]) -> Verdict:
    """Check ``answer(log_pi, log_ref, rewards, beta) -> J``, a number, from arrays (X, N)."""

    def exact(log_pi: np.ndarray, log_ref: np.ndarray, rewards: np.ndarray, beta: float) -> float:
        return sequences.expected_reward(log_pi, rewards) - beta * sequences.kl(log_pi, log_ref)

    def backwards(log_pi: np.ndarray, log_ref: np.ndarray, r: np.ndarray, beta: float) -> float:
        return sequences.expected_reward(log_pi, r) - beta * sequences.kl(log_ref, log_pi)

    rng = np.random.default_rng(0)
    cases = []
    for beta in (0.3, 2.0):
        tables = [log_softmax(rng.normal(size=(2, 7)), axis=1) for _ in range(2)]
        cases.append((*tables, rng.normal(size=(2, 7)), beta))
    return compare_function(
        answer,
        exact,
        cases,
        mistakes={
            "this is KL(reference || policy); the mean in KL(policy || reference) is over the "
            "policy's responses": backwards,
            "this is the sum over prompts; J is the mean": lambda *case: 2 * exact(*case),
            "the KL is added; it must be subtracted": lambda p, q, r, beta: exact(p, q, r, -beta),
        },
    )


def sentence_kl(answer: Callable[..., Any]) -> Verdict:
    """Check ``answer(log_ratios, valid) -> nats per sentence``, from arrays (T, E)."""

    def exact(log_ratios: np.ndarray, valid: np.ndarray) -> float:
        return float(k1(np.where(valid, log_ratios, 0.0).sum(axis=0)).mean())

    rng = np.random.default_rng(1)
    lengths = np.array([3, 1, 4]), np.array([2, 5, 2, 1])
    cases = [(rng.normal(size=(5, len(n))), np.arange(5)[:, None] < n) for n in lengths]
    return compare_function(
        answer,
        exact,
        cases,
        mistakes={
            "this is in nats per token: sum over tokens, then average over sentences": (
                lambda ratios, valid: ratios[valid].mean()
            ),
            "rows after the end of a sentence are counted too": (
                lambda ratios, valid: ratios.sum(axis=0).mean()
            ),
        },
    )


def shaped_rewards(answer: Callable[..., Any]) -> Verdict:
    """Check ``answer(rewards, log_probs, reference_log_probs, beta) -> (T, E)``, all rows valid."""
    task, rng = arithmetic(), np.random.default_rng(2)
    shape = len(task.prompts), task.num_contexts, len(task.vocabulary)
    tables = [log_softmax(rng.normal(size=shape), axis=2) for _ in range(2)]
    policy, reference = (full_prefix_policy(task, table) for table in tables)
    envs = TokenGenerationVectorEnv(1, task, rng.normal(size=(shape[0], task.num_responses)))
    cases, exact = [], {}
    for beta in (0.3, 1.0):
        rollout = collect_episodes(envs, policy, None, rng, max_steps=6, seed=4)
        log_reference = reference(rollout.observations[:, 0]).log_prob(rollout.actions[:, 0])
        cases.append((rollout.rewards, rollout.log_probs, log_reference[:, None], beta))
        exact[beta] = ReferenceKL(reference, beta).transform(beta, rollout, policy)[1]

    def at_the_end(
        rewards: np.ndarray, log_policy: np.ndarray, log_reference: np.ndarray, beta: float
    ) -> np.ndarray:
        last = np.arange(len(rewards))[:, None] == len(rewards) - 1
        return np.asarray(rewards - last * beta * (log_policy - log_reference).sum(axis=0))

    return compare_function(
        answer,
        lambda rewards, log_policy, log_reference, beta: exact[beta],
        cases,
        mistakes={
            "the penalty has the wrong sign: it must lower the reward of likelier tokens": (
                lambda rewards, log_policy, log_reference, beta: (
                    rewards + beta * (log_policy - log_reference)
                )
            ),
            "the penalty of the whole sentence is subtracted at its last token; subtract the part "
            "of each token where it was chosen": at_the_end,
        },
    )


def soft_optimum(answer: Callable[..., Any]) -> Verdict:
    """Check ``answer(reference, rewards, beta) -> probabilities``, all (3,)."""

    def exact(reference: np.ndarray, rewards: np.ndarray, beta: float) -> np.ndarray:
        # A tree of two words and L = 1: the responses are nothing, word 0, word 1.
        log_reference = np.log(np.roll(reference, -1))[None, None]
        optimum, _ = sequences.soft_optimal_policy(log_reference, rewards[None], beta)
        return np.asarray(np.exp(sequences.response_log_probs(optimum))[0])

    rng = np.random.default_rng(5)
    cases = [(softmax(rng.normal(size=3)), rng.normal(size=3), beta) for beta in (0.3, 2.0)]
    return compare_function(
        answer,
        exact,
        cases,
        mistakes={
            "the reference is missing: this is softmax(rewards / beta)": (
                lambda reference, rewards, beta: softmax(rewards / beta)
            ),
            "the rewards are multiplied by beta; they must be divided by it": (
                lambda reference, rewards, beta: exact(reference, rewards, 1 / beta)
            ),
            "the weights are right, but they do not sum to 1 yet": (
                lambda reference, rewards, beta: reference * np.exp(rewards / beta)
            ),
        },
    )


def k3_loss_gradient(answer: Callable[..., Any]) -> Verdict:
    """Check ``answer(policy, reference) -> gradient with respect to the logits``, all (3,)."""

    def loss_gradient(
        slope: Callable[[np.ndarray], np.ndarray],
    ) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        def gradient(policy: np.ndarray, reference: np.ndarray) -> np.ndarray:
            log_policy = np.log(np.roll(policy, -1))[None, None]
            coefficients = policy * slope(np.log(policy / reference))
            by_token = sequences.score_sum(log_policy, coefficients[None])[0, 0]
            return np.roll(by_token, 1)

        return gradient

    rng = np.random.default_rng(6)
    cases = [(softmax(rng.normal(size=3)), softmax(rng.normal(size=3))) for _ in range(2)]
    exact = loss_gradient(lambda u: -np.expm1(-u))
    return compare_function(
        answer,
        exact,
        cases,
        mistakes={
            "this is the gradient of KL(policy || reference), as for k2": (
                loss_gradient(lambda u: u)
            ),
            "the sign is wrong: the loss decreases towards the reference": lambda p, q: (
                -exact(p, q)
            ),
            "this is the gradient of k1, which is 0 on average; that of k3 is not": (
                lambda policy, reference: np.zeros(3)
            ),
        },
    )
