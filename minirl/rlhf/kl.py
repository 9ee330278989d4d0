"""The KL divergence to a frozen reference: three estimators, and the penalty in the reward.

With log_ratio = log pi(y) - log pi_ref(y) of a response y sampled from pi, KL(pi || pi_ref) is the
mean of each of::

    k1 = log_ratio                           unbiased; its sign varies                       (1)
    k2 = log_ratio^2 / 2                     biased, the less the closer the two             (2)
    k3 = exp(-log_ratio) - 1 + log_ratio     unbiased and positive; heavy-tailed far away    (3)

As a *loss*, differentiated at fixed samples, they are something else: E[grad k1] = 0, E[grad k2]
is the gradient of KL(pi || pi_ref), and E[grad k3] that of KL(pi_ref || pi). The penalty therefore
goes into the reward, token by token, where the policy gradient differentiates the sampling::

    r'_t = r_t - beta (log pi(a_t|s_t) - log pi_ref(a_t|s_t))                                (4)

Schulman, "Approximating KL divergence" (2020), for the names; Ziegler et al. 2019 for (4).
"""

from dataclasses import dataclass

import numpy as np

from minirl.algorithms.ppo import COEFFICIENT_RANGE
from minirl.batch import Rollout
from minirl.policy import Policy
from minirl.support.arguments import check_arguments
from minirl.support.validation import require_finite, require_instance, require_positive


def k1(log_ratio: np.ndarray) -> np.ndarray:
    """Equation (1); its derivative in log pi is 1."""
    return log_ratio


def k2(log_ratio: np.ndarray) -> np.ndarray:
    """Equation (2); its derivative in log pi is log_ratio."""
    return log_ratio * log_ratio / 2


def k3(log_ratio: np.ndarray) -> np.ndarray:
    """Equation (3); its derivative in log pi is 1 - exp(-log_ratio). Infinite where pi(y) is 0.

    >>> k3(np.array([0.0, np.log(2.0)])).round(4)  # ref/pi - 1 + log(pi/ref) = 1/2 - 1 + 0.6931
    array([0.    , 0.1931])
    """
    with np.errstate(invalid="ignore"):  # infinity minus infinity, where the exponential is larger
        estimate = np.expm1(-log_ratio) + log_ratio
    return np.where(np.isneginf(log_ratio), np.inf, estimate)


@dataclass(frozen=True)
class AdaptiveReferenceBeta:
    """Ziegler's controller, as in their code (lm-human-preferences): beta follows the measured KL.

    beta <- beta (1 + clip(KL / target - 1, -0.2, 0.2) sentences / horizon)

    The coefficient stays within a factor of 2^20, about a million, of its start, so that it can
    recover from any run of small or large KLs.

    The defaults are StackLLaMA's. On the token task the KL is about 2, and budgets are smaller.

    Parameters
    ----------
    initial : float
        The first beta, in units of reward per nat.
    target : float
        KL(pi || pi_ref) to keep, in nats per sentence.
    horizon : float
        Sentences in which beta changes by at most 20 %, roughly.
    """

    initial: float = 0.2
    target: float = 6.0
    horizon: float = 10_000.0

    def __post_init__(self) -> None:
        require_positive("initial", self.initial)
        require_positive("target", self.target)
        require_positive("horizon", self.horizon)

    def next_beta(self, beta: float, kl: float, sentences: int) -> float:
        """The coefficient after a rollout of `sentences` sentences with this mean KL.

        >>> AdaptiveReferenceBeta(target=2.0, horizon=1000.0).next_beta(0.3, kl=2.2, sentences=500)
        0.315

        Raises
        ------
        ValueError
            If one rollout is so much longer than the horizon that beta would not stay above 0, or
            the KL is not a finite number.
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
    """log pi(a_t|s_t) - log pi_ref(a_t|s_t) in nats (T, E), 0 on invalid rows."""
    valid = rollout.valid
    theirs = reference(rollout.observations[valid])
    differences = np.zeros(valid.shape)
    differences[valid] = rollout.log_probs[valid] - theirs.log_prob(rollout.actions[valid])
    return differences


def next_token_kl(policy: Policy, reference: Policy, contexts: np.ndarray) -> np.ndarray:
    """Exact KL(pi(.|s) || pi_ref(.|s)) in nats (N,) of the next token in contexts s (N,).

    Raises
    ------
    ValueError
        Where the reference excludes a token that the policy may write, sampled or not.
    """
    own, theirs = (model(contexts) for model in (policy, reference))
    excluded = np.isneginf(theirs.eta) & ~np.isneginf(own.eta)
    if excluded.any():
        row, token = np.argwhere(excluded)[0]
        raise ValueError(
            f"reference gives token {token} probability 0 in context {contexts[row]}, where the "
            "policy has some: KL(policy || reference) is infinite; smooth the reference"
        )
    return own.kl(theirs)


@dataclass(frozen=True)
class ReferenceKL:
    """Reward transform (4): what learning sees is the reward minus beta times the KL, sampled.

    Needs whole episodes, one sentence a column, and raises ValueError otherwise. Its metrics are
    nats per sentence, of the policy that acted: k1, k2, k3 of whole sentences, and the exact KL of
    each next-token distribution summed along the sampled prefixes, which is unbiased too and varies
    least.

    Parameters
    ----------
    reference : Policy
        Frozen; it is only ever read.
    beta : float or AdaptiveReferenceBeta
        In units of reward per nat, above 0.
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
        """The next beta, the rewards (4) (T, E) under the current one, and the KL measured.

        Raises
        ------
        ValueError
            If the rollout does not hold one whole sentence per column, the reference excludes a
            token that was sampled, or beta times the KL is not a finite number.
        """
        require_positive("state", state)
        if not ((rollout.done & rollout.valid).sum(axis=0) == 1).all():
            raise ValueError(
                "ReferenceKL needs one whole sentence per column: Settings(whole_episodes=True), "
                "and rollout_steps no less than the tokens of the longest sentence"
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
