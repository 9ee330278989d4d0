"""The KL divergence to a frozen reference: the penalty in the reward.

The penalty is part of the reward of each token. The policy gradient then accounts for how the
sampling depends on the parameters::

    r'_t = r_t - beta (log pi(a_t|s_t) - log pi_ref(a_t|s_t))                                (1)

The estimators k1, k2 and k3 of the KL, and the KL as a term of the loss, are in
`minirl.algorithms.reference_loss`. Source: Ziegler et al. 2019.
"""

from dataclasses import dataclass

import numpy as np

from minirl.algorithms.ppo import COEFFICIENT_RANGE
from minirl.algorithms.reference_loss import k1, k2, k3
from minirl.batch import Rollout
from minirl.policy import Policy
from minirl.support.arguments import check_arguments
from minirl.support.fields import Positive, check_fields
from minirl.support.validation import require_finite, require_instance, require_positive


@dataclass(frozen=True)
class AdaptiveReferenceBeta:
    """A beta that rises while the measured KL is above a target and falls while it is below.

    This is the controller of Ziegler et al. 2019, as in their code (lm-human-preferences)::

        beta <- beta (1 + clip(KL / target - 1, -0.2, 0.2) sentences / horizon)

    The coefficient stays within a factor of 2^20, about a million, of its first value, so that it
    can recover from any series of small or large KLs. The defaults are StackLLaMA's. On the token
    task the KL is about 2 nats, and training runs are shorter.

    Parameters
    ----------
    initial : float
        The first beta, in units of reward per nat.
    target : float
        The desired KL(pi || pi_ref), in nats per sentence.
    horizon : float
        Number of sentences in which beta changes by at most about 20 %.
    """

    initial: Positive = 0.2
    target: Positive = 6.0
    horizon: Positive = 10_000.0

    def __post_init__(self) -> None:
        check_fields(self)

    def next_beta(self, beta: float, kl: float, sentences: int) -> float:
        """beta (1 + clip(kl / target - 1, -0.2, 0.2) sentences / horizon): beta after a rollout.

        The rollout had `sentences` sentences and this mean `kl` in nats per sentence.

        >>> AdaptiveReferenceBeta(target=2.0, horizon=1000.0).next_beta(0.3, kl=2.2, sentences=500)
        0.315

        Raises
        ------
        ValueError
            If the rollout has so many more sentences than the horizon that beta would not stay
            above 0, or if the KL is not a finite number.
        """
        require_finite("kl", kl)
        error = float(np.clip(kl / self.target - 1, -0.2, 0.2))
        factor = 1 + error * sentences / self.horizon
        if not factor > 0:
            raise ValueError(
                f"horizon must be above a fifth of a rollout of {sentences} sentences, got "
                f"{self.horizon!r}: beta would become {beta * factor:.3g}"
            )
        beta = max(beta * factor, self.initial / COEFFICIENT_RANGE)
        return min(beta, self.initial * COEFFICIENT_RANGE)


def log_ratios(reference: Policy, rollout: Rollout) -> np.ndarray:
    """log pi(a_t|s_t) - log pi_ref(a_t|s_t) of a rollout, in nats (T, E); 0 on invalid rows."""
    valid = rollout.valid
    reference_log_probs = reference(rollout.observations[valid]).log_prob(rollout.actions[valid])
    differences = np.zeros(valid.shape)
    differences[valid] = rollout.log_probs[valid] - reference_log_probs
    return differences


def next_token_kl(policy: Policy, reference: Policy, contexts: np.ndarray) -> np.ndarray:
    """Exact KL(pi(.|s) || pi_ref(.|s)) of the next token, in nats (N,), in contexts s (N,).

    The KL of a context is sum_v pi(v|s) (log pi(v|s) - log pi_ref(v|s)).

    Raises
    ------
    ValueError
        If the reference gives probability 0 to a token to which the policy gives more than 0.
    """
    pi, pi_ref = (model(contexts) for model in (policy, reference))
    excluded = np.isneginf(pi_ref.eta) & ~np.isneginf(pi.eta)
    if excluded.any():
        row, token = np.argwhere(excluded)[0]
        raise ValueError(
            f"reference gives token {token} probability 0 in context {contexts[row]}, where the "
            "policy has some: KL(policy || reference) is infinite; smooth the reference"
        )
    return pi.kl(pi_ref)


@dataclass(frozen=True)
class ReferenceKL:
    """Reward transform (1): subtracts beta times the log-ratio to the reference from each reward.

    r'_t = r_t - beta (log pi(a_t|s_t) - log pi_ref(a_t|s_t))

    Each column of the rollout must contain exactly one whole episode, that is one sentence. The
    metrics describe the policy that acted, in nats per sentence. They are the means of k1, k2 and
    k3 over whole sentences, and the exact KL of each next-token distribution, summed over the
    sampled prefixes. This sum is also unbiased and has the smallest variance.

    Parameters
    ----------
    reference : Policy
        pi_ref; it is not changed.
    beta : float or AdaptiveReferenceBeta
        The coefficient, in units of reward per nat, above 0.
    """

    reference: Policy
    beta: float | AdaptiveReferenceBeta = 0.3

    def __post_init__(self) -> None:
        require_instance("reference", self.reference, Policy)
        if not isinstance(self.beta, AdaptiveReferenceBeta):
            require_positive("beta", self.beta)

    def init(self, num_envs: int) -> float:
        """The first beta."""
        return self.beta.initial if isinstance(self.beta, AdaptiveReferenceBeta) else self.beta

    def transform(
        self, state: float, rollout: Rollout, policy: Policy
    ) -> tuple[float, np.ndarray, dict[str, float]]:
        """The next beta, the rewards (T, E) with the current beta, and the measured KL.

        r'_t = r_t - beta (log pi(a_t|s_t) - log pi_ref(a_t|s_t)), with beta = `state`.

        Raises
        ------
        ValueError
            If the rollout does not hold one whole sentence per column, the reference excludes a
            token that was sampled, or beta times the KL is not a finite number.
        """
        require_positive("state", state)
        if not ((rollout.done & rollout.valid).sum(axis=0) == 1).all():
            raise ValueError(
                "ReferenceKL needs settings with one whole sentence per column: whole_episodes=True"
                " and rollout_steps no less than the tokens of the longest sentence"
            )
        beta, contexts = state, rollout.observations[rollout.valid]
        along_prefixes = next_token_kl(policy, self.reference, contexts).sum()
        differences = log_ratios(self.reference, rollout)
        with np.errstate(over="ignore"):
            rewards = rollout.rewards - beta * differences
        if not np.isfinite(rewards).all():
            raise ValueError(
                f"beta = {beta:.3g} times log-ratios of up to {np.abs(differences).max():.3g} nats "
                "is not a finite reward; use a smaller beta"
            )
        sentence = differences.sum(axis=0)
        metrics = {
            "reference_beta": beta,
            "reference_k1": float(k1(sentence).mean()),
            "reference_k2": float(k2(sentence).mean()),
            "reference_k3": float(k3(sentence).mean()),
            "reference_kl_along_prefixes": float(along_prefixes) / len(sentence),
        }
        if isinstance(self.beta, AdaptiveReferenceBeta):
            beta = self.beta.next_beta(beta, metrics["reference_k1"], len(sentence))
        return beta, rewards, metrics


check_arguments(__name__)
