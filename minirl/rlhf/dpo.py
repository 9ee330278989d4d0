"""Direct preference optimisation: alignment without a reward model and without sampling.

The optimum of E[r] - beta KL(pi || pi_ref) is pi*(y|x) = pi_ref(y|x) exp(r(x,y)/beta) / Z(x).
Solved for the reward, and put into the Bradley-Terry model, where Z(x) cancels::

    r_hat(x, y) = beta log(pi(y|x) / pi_ref(y|x))         the implicit reward                  (1)
    margin = r_hat(x, y_1) - r_hat(x, y_2)                                                     (2)
    DPO:  - p log sigmoid(margin) - (1 - p) log sigmoid(-margin)                               (3)
    IPO:  p (m - 1/(2 beta))^2 + (1 - p) (m + 1/(2 beta))^2,   m = margin / beta               (4)

with p the label: the probability that y_1 is preferred (soft), or 0 or 1 (hard). Log-probabilities
are summed over the tokens of a response, never averaged. If the labels are Bradley-Terry
probabilities of r itself, sigmoid(r_1 - r_2), and every pair is covered, pi* is the minimum of (3),
however often each pair occurs. An annotator of temperature T has r / T, and one who errs by flips
follows no Bradley-Terry model of r.

(1)-(3): Rafailov et al. 2023; (4): Azar et al. 2023.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import expit, log_expit
from tqdm import tqdm

from minirl.envs.token_tasks import Paths, TokenTask, require_indices
from minirl.exact import sequences
from minirl.optimizers import Adam, LinearSchedule, Optimizer, at_progress, require_optimizer
from minirl.policy import Policy
from minirl.rlhf.language_model import log_table, require_model
from minirl.rlhf.preferences import Preferences
from minirl.rlhf.reward_model import accuracy, require_labelled
from minirl.support.arguments import check_arguments
from minirl.support.machine import one_core
from minirl.support.validation import (
    MOST_STEPS,
    require_count,
    require_positive,
    require_within,
)
from minirl.training import Measure

# With a smaller or larger beta, rounding decides the margins: they are beta times a difference of
# log-probabilities, and labels strictly between 0 and 1 call for margins of about 1.
SMALLEST_BETA, LARGEST_BETA = 1e-8, 1e8


def _require_beta(beta: float) -> None:
    require_within("beta", beta, SMALLEST_BETA, LARGEST_BETA)


def dpo_loss(margins: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Equation (3), mean over M pairs, and its derivative in the margins (M,): sigmoid - p.

    Starts at log 2, where policy and reference are equal. Raises ValueError unless margins and
    labels are one number per pair, and labels lie in [0, 1].

    >>> loss, d_margins = dpo_loss(np.array([0.0]), np.array([1.0]))
    >>> round(loss, 4), d_margins
    (0.6931, array([-0.5]))
    """
    margins, labels = require_labelled("margins", margins, labels)
    log_likelihood = _weighted(labels, log_expit(margins))
    log_likelihood += _weighted(1 - labels, log_expit(-margins))
    return -float(log_likelihood.mean()), (expit(margins) - labels) / len(margins)


def _weighted(labels: np.ndarray, terms: np.ndarray) -> np.ndarray:
    """labels times terms, and 0 where a label is 0, even if the term is minus infinity."""
    return np.multiply(labels, terms, out=np.zeros(terms.shape), where=labels > 0)


def ipo_loss(margins: np.ndarray, labels: np.ndarray, beta: float) -> tuple[float, np.ndarray]:
    """Equation (4), mean over M pairs, and its derivative in the margins (M,).

    Raises ValueError as `dpo_loss`, and for a beta outside [1e-8, 1e8].

    >>> ipo_loss(np.array([0.0]), np.array([1.0]), beta=0.5)  # (0 - 1)^2, slope 2 (0 - 1) / 0.5
    (1.0, array([-4.]))
    """
    _require_beta(beta)
    margins, labels = require_labelled("margins", margins, labels)
    m, target = margins / beta, 1 / (2 * beta)
    loss = (labels * (m - target) ** 2 + (1 - labels) * (m + target) ** 2).mean()
    slope = 2 * (m - (2 * labels - 1) * target) / beta
    return float(loss), slope / len(margins)


def implicit_reward(task: TokenTask, policy: Policy, reference: Policy, beta: float) -> np.ndarray:
    """Equation (1) for every response, (X, N): the reward that this policy is optimal for.

    Raises
    ------
    ValueError
        If beta lies outside [1e-8, 1e8], or the reference gives some response probability 0.
    """
    _require_beta(beta)
    own, theirs = (
        sequences.response_log_probs(log_table(task, model)) for model in (policy, reference)
    )
    if not np.isfinite(theirs).all():
        prompt, response = np.argwhere(~np.isfinite(theirs))[0]
        raise ValueError(
            f"reference gives probability 0 to {task.text(response)!r} for "
            f"{task.prompts[prompt]!r}: it has no log-ratio; smooth the reference"
        )
    return beta * (own - theirs)


def path_log_probs(policy: Policy, paths: Paths) -> tuple[np.ndarray, Any]:
    """log pi(y|x) (M,) of M responses, summed over their tokens, and what the gradient needs."""
    valid = paths.valid
    distribution, cache = policy.forward(paths.observations[valid])
    log_probs = np.zeros(valid.shape)
    log_probs[valid] = distribution.log_prob(paths.tokens[valid])
    return log_probs.sum(axis=1), (distribution, cache)


def path_gradient(policy: Policy, paths: Paths, kept: Any, d_log_probs: np.ndarray) -> np.ndarray:
    """sum_i d_i grad log pi(y_i|x_i), (P,), for d (M,) and what `path_log_probs` kept."""
    distribution, cache = kept
    of_token = np.broadcast_to(d_log_probs[:, None], paths.valid.shape)[paths.valid]
    scores = distribution.grad_log_prob(paths.tokens[paths.valid])
    return policy.vjp(cache, of_token[:, None] * scores)


@dataclass(frozen=True, eq=False)
class DPOResult:
    """What `DPO.fit` leaves.

    Parameters
    ----------
    policy : Policy
    rows : list of dict
        Of each step: "loss", the expected agreement of the margin's sign with the label
        ("agreement"), and, where measured, the numbers of `measure` before the step.
    """

    policy: Policy
    rows: list[dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class DPO:
    """Gradient steps on minibatches of preferences.

    Parameters
    ----------
    beta : float
        Of the KL penalty that is solved for: in units of reward per nat; for IPO, whose objective
        is the probability of being preferred and not the reward, in that probability per nat (a
        smaller number for the same effect, see docs/results/rlhf.md). In [1e-8, 1e8].
    loss : {"dpo", "ipo"}
        Equation (3) or (4).
    learning_rate : float or LinearSchedule
    steps : int
        Gradient steps. The default suits soft labels. Hard ones are learned by heart: of 3,000
        pairs of the arithmetic task, 150 steps leave more than 600.
    minibatch_size : int
        Pairs a step, drawn without replacement from a shuffled order, epoch by epoch.
    optimizer : Optimizer
    """

    beta: float = 0.3
    loss: Literal["dpo", "ipo"] = "dpo"
    learning_rate: float | LinearSchedule = LinearSchedule(0.1)
    steps: int = 600
    minibatch_size: int = 512
    optimizer: Optimizer = Adam()

    def __post_init__(self) -> None:
        _require_beta(self.beta)
        if self.loss not in ("dpo", "ipo"):
            raise ValueError(f'loss must be "dpo" or "ipo", got {self.loss!r}')
        require_positive("learning_rate", at_progress(self.learning_rate, 0.0))
        require_count("steps", self.steps, most=MOST_STEPS)
        require_count("minibatch_size", self.minibatch_size)
        require_optimizer("optimizer", self.optimizer)

    def loss_and_gradient(
        self,
        policy: Policy,
        first: Paths,
        second: Paths,
        reference_margins: np.ndarray,
        labels: np.ndarray,
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """The loss, its gradient (P,) and the margins (2) (M,).

        Parameters
        ----------
        first, second : Paths
            Of the two responses of each of M pairs.
        reference_margins : ndarray (M,)
            log pi_ref(y_1|x) - log pi_ref(y_2|x).
        labels : ndarray (M,)
        """
        first_log_probs, kept_first = path_log_probs(policy, first)
        second_log_probs, kept_second = path_log_probs(policy, second)
        margins = self.beta * (first_log_probs - second_log_probs - reference_margins)
        if self.loss == "dpo":
            loss, d_margins = dpo_loss(margins, labels)
        else:
            loss, d_margins = ipo_loss(margins, labels, self.beta)
        gradient = path_gradient(policy, first, kept_first, self.beta * d_margins)
        gradient -= path_gradient(policy, second, kept_second, self.beta * d_margins)
        return loss, gradient, margins

    def fit(
        self,
        task: TokenTask,
        reference: Policy,
        preferences: Preferences,
        rng: np.random.Generator,
        *,
        measure: Measure | None = None,
        progress: bool = False,
    ) -> DPOResult:
        """Align a copy of the reference to preferences.

        Parameters
        ----------
        reference : Policy
            Where learning starts and what the KL refers to; never changed.
        preferences : Preferences
            Of answers in `task`.
        rng : Generator
            Shuffles the pairs.
        measure : callable, optional
            measure(policy) -> numbers to record before each step; none, if it returns none.
        progress : bool
            Show a progress bar.

        Raises
        ------
        ValueError
            For a prompt or response that the task does not have, or an answer to which the
            reference gives probability 0.
        """
        _require_of_task(task, preferences)
        require_model(task, reference)
        # (1) the steps of both answers, and what the reference thinks of them, once and for all
        first = task.paths(preferences.prompts, preferences.first)
        second = task.paths(preferences.prompts, preferences.second)
        reference_margins = (
            path_log_probs(reference, first)[0] - path_log_probs(reference, second)[0]
        )
        if not np.isfinite(reference_margins).all():
            pair = int(np.argmin(np.isfinite(reference_margins)))
            raise ValueError(
                f"reference gives probability 0 to an answer of pair {pair}: it has no log-ratio; "
                "smooth the reference"
            )
        # (2) start at the reference: all margins 0, the loss log 2
        policy, state = reference, self.optimizer.init(reference.parameters)
        rows: list[dict[str, float]] = []
        order = np.zeros(0, dtype=np.int64)
        size = min(self.minibatch_size, len(preferences))
        with one_core():
            for step in tqdm(range(self.steps), unit="step", disable=not progress):
                row = measure(policy) if measure else {}
                # (3) the next pairs of the shuffled order
                if len(order) < size:
                    order = rng.permutation(len(preferences))
                pairs, order = order[:size], order[size:]
                labels = preferences.labels[pairs]
                # (4) margins, loss and gradient
                loss, gradient, margins = self.loss_and_gradient(
                    policy,
                    Paths(*(column[pairs] for column in first)),
                    Paths(*(column[pairs] for column in second)),
                    reference_margins[pairs],
                    labels,
                )
                # (5) the step
                state, theta = self.optimizer.step(
                    state,
                    policy.parameters,
                    gradient,
                    at_progress(self.learning_rate, step / self.steps),
                )
                policy = policy.with_parameters(theta)
                rows.append({"loss": loss, "agreement": accuracy(expit(margins), labels), **row})
        return DPOResult(policy, rows)


def probability_masses(
    task: TokenTask, policy: Policy, preferences: Preferences
) -> dict[str, float]:
    """Where the probability lies, mean over prompts, computed exactly.

    DPO raises the chosen answers *relative* to the rejected ones only; both may fall, in favour of
    answers that no pair mentions.

    Returns
    -------
    dict : the mass of answers that were only "chosen", only "rejected", in pairs on both sides
        ("both"), and never seen ("unseen"); they sum to 1. Needs hard labels.
    """
    _require_of_task(task, preferences)
    probs = np.exp(sequences.response_log_probs(log_table(task, policy)))
    chosen, rejected = np.zeros(probs.shape, dtype=bool), np.zeros(probs.shape, dtype=bool)
    chosen[preferences.prompts, preferences.chosen] = True
    rejected[preferences.prompts, preferences.rejected] = True
    members = {
        "chosen": chosen & ~rejected,
        "rejected": rejected & ~chosen,
        "both": chosen & rejected,
        "unseen": ~(chosen | rejected),
    }
    return {name: float(probs[mask].sum()) / len(probs) for name, mask in members.items()}


def _require_of_task(task: TokenTask, preferences: Preferences) -> None:
    require_indices("prompts of the preferences", preferences.prompts, len(task.prompts))
    require_indices("first of the preferences", preferences.first, task.num_responses)
    require_indices("second of the preferences", preferences.second, task.num_responses)


check_arguments(
    __name__,
    often=("path_log_probs", "path_gradient", "dpo_loss", "ipo_loss", "DPO.loss_and_gradient"),
)
