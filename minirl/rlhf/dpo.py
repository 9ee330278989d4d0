"""Direct preference optimisation: alignment without a reward model and without sampling.

The optimum of E[r] - beta KL(pi || pi_ref) is pi*(y|x) = pi_ref(y|x) exp(r(x,y)/beta) / Z(x).
This equation is solved for the reward and inserted into the Bradley-Terry model, where Z(x)
cancels::

    r_hat(x, y) = beta log(pi(y|x) / pi_ref(y|x))         the implicit reward                  (1)
    margin = r_hat(x, y_1) - r_hat(x, y_2)                                                     (2)
    DPO:  - p log sigmoid(margin) - (1 - p) log sigmoid(-margin)                               (3)
    IPO:  p (m - 1/(2 beta))^2 + (1 - p) (m + 1/(2 beta))^2,   m = margin / beta               (4)

Here p is the label: the probability that y_1 is preferred (soft), or 0 or 1 (hard).
Log-probabilities are summed over the tokens of a response, never averaged. The losses (3), (4) and
their relatives are in `preference_losses.py`; the loop below serves all of them.

If the labels are the Bradley-Terry probabilities sigmoid(r_1 - r_2) and every pair occurs, then
pi* is the minimum of (3), no matter how often each pair occurs. The labels of an annotator of
temperature T correspond to the reward r / T. The labels of an annotator who sometimes turns them
round follow no Bradley-Terry model of r.

(1)-(3): Rafailov et al. 2023; (4): Azar et al. 2023.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, NamedTuple

import numpy as np
from scipy.special import expit
from tqdm import tqdm

from minirl.envs.token_tasks import Paths, TokenTask, require_indices
from minirl.exact import sequences
from minirl.optimizers import (
    Adam,
    CheckedOptimizer,
    LinearSchedule,
    PositiveSchedule,
    at_progress,
)
from minirl.policy import Policy
from minirl.rlhf.language_model import log_table, require_model
from minirl.rlhf.preference_losses import (
    LARGEST_BETA,
    PREFERENCE_LOSSES,
    SMALLEST_BETA,
    PairLogProbs,
    PreferenceLoss,
)
from minirl.rlhf.preferences import FreshPairs, Preferences
from minirl.rlhf.reward_model import accuracy
from minirl.support.arguments import check_arguments
from minirl.support.fields import Count, check_fields
from minirl.support.machine import one_core
from minirl.support.validation import MOST_STEPS, require_count, require_within
from minirl.training import Measure

_require_beta = partial(require_within, low=SMALLEST_BETA, high=LARGEST_BETA)
_require_steps = partial(require_count, most=MOST_STEPS)


def implicit_reward(task: TokenTask, policy: Policy, reference: Policy, beta: float) -> np.ndarray:
    """The implicit reward (1) of every response (X, N): the reward for which the policy is optimal.

    r_hat(x, y) = beta (log pi(y|x) - log pi_ref(y|x)), in the units of the reward; optimal for
    E[r] - beta KL(pi || pi_ref).

    Raises
    ------
    ValueError
        If beta lies outside [1e-8, 1e8], or the reference gives some response probability 0.
    """
    _require_beta("beta", beta)
    log_probs, reference_log_probs = (
        sequences.response_log_probs(log_table(task, model)) for model in (policy, reference)
    )
    if not np.isfinite(reference_log_probs).all():
        prompt, response = np.argwhere(~np.isfinite(reference_log_probs))[0]
        raise ValueError(
            f"reference gives probability 0 to {task.text(response)!r} for "
            f"{task.prompts[prompt]!r}: it has no log-ratio; smooth the reference"
        )
    return beta * (log_probs - reference_log_probs)


def path_log_probs(policy: Policy, paths: Paths) -> tuple[np.ndarray, Any]:
    """log pi(y|x) = sum_t log pi(y_t|x, y_<t) in nats (M,) of M responses, and a cache.

    `path_gradient` computes the gradient from the cache.
    """
    valid = paths.valid
    distribution, cache = policy.forward(paths.observations[valid])
    log_probs = np.zeros(valid.shape)
    log_probs[valid] = distribution.log_prob(paths.tokens[valid])
    return log_probs.sum(axis=1), (distribution, cache)


def path_gradient(policy: Policy, paths: Paths, cache: Any, d_log_probs: np.ndarray) -> np.ndarray:
    """The gradient sum_i d_i grad log pi(y_i|x_i) (P,), for factors d (M,).

    Parameters
    ----------
    policy, paths
        The arguments of `path_log_probs`.
    cache : object
        The second value that `path_log_probs` returned for them.
    d_log_probs : ndarray (M,)
        The derivative of a loss with respect to log pi(y_i|x_i).
    """
    distribution, network_cache = cache
    d_tokens = np.broadcast_to(d_log_probs[:, None], paths.valid.shape)[paths.valid]
    scores = distribution.grad_log_prob(paths.tokens[paths.valid])
    return policy.vjp(network_cache, d_tokens[:, None] * scores)


@dataclass(frozen=True, eq=False)
class DPOResult:
    """The result of `DPO.fit`.

    Parameters
    ----------
    policy : Policy
        The aligned policy.
    rows : list of dict
        One dict per step: "loss", the expected agreement of the margin's sign with the label
        ("agreement"), and the numbers that `measure` returned before the step, if any.
    """

    policy: Policy
    rows: list[dict[str, float]]


def mismatched_kl(
    task: TokenTask, policy: Policy, reference: Policy, preferences: Preferences
) -> float:
    """KTO's estimate of KL(pi || pi_ref) in nats: responses of other pairs, each to another prompt.

    z = max(0, mean over i of log pi(y_j|x_i) - log pi_ref(y_j|x_i)), where i goes through the
    responses of all M pairs, first and second, and j is the one after i (arXiv:2402.01306). The
    responses are not samples of the policy, so z is no unbiased estimate of the KL.

    Raises
    ------
    ValueError
        If the reference gives one of the responses probability 0 as an answer to the other prompt.
    """
    prompts = np.concatenate([preferences.prompts, preferences.prompts])
    responses = np.roll(np.concatenate([preferences.first, preferences.second]), -1)
    paths = task.paths(prompts, responses)
    reference_log_probs = path_log_probs(reference, paths)[0]
    if not np.isfinite(reference_log_probs).all():
        raise ValueError(
            "reference gives probability 0 to an answer of one pair as an answer to the prompt of "
            "another: KTO's estimate of the KL is infinite; smooth the reference"
        )
    return max(0.0, float((path_log_probs(policy, paths)[0] - reference_log_probs).mean()))


def _require_loss(name: str, value: Any) -> None:
    if not (isinstance(value, PreferenceLoss) or value in PREFERENCE_LOSSES):
        raise ValueError(
            f"{name} must be one of {', '.join(PREFERENCE_LOSSES)}, or a loss of "
            f"minirl.rlhf.preference_losses, got {value!r}"
        )


@dataclass(frozen=True, kw_only=True)
class DPO:
    """Gradient steps on minibatches of preference pairs, down the DPO loss or one of its relatives.

    With margin = beta (log pi(y_1|x)/pi_ref(y_1|x) - log pi(y_2|x)/pi_ref(y_2|x)), p the label and
    m = margin / beta, the loss of a pair is::

        "dpo":  - p log sigmoid(margin) - (1 - p) log sigmoid(-margin)                         (3)
        "ipo":  p (m - 1/(2 beta))^2 + (1 - p) (m + 1/(2 beta))^2                              (4)

    `minirl.rlhf.preference_losses` contains the other losses.

    Parameters
    ----------
    beta : float
        The coefficient of the KL in the objective that the optimal policy maximises, in
        [1e-8, 1e8]. For DPO it is in units of reward per nat. The objective of IPO is the
        probability of being preferred, not the reward: there beta is in that probability per nat,
        and a smaller number has the same effect (see docs/results/rlhf.md). The beta of another
        loss is that of its formula in `preference_losses`.
    loss : str or PreferenceLoss
        A name in `PREFERENCE_LOSSES`, such as "dpo" or "ipo", or a value, such as
        ``RobustDPO(flips=0.2)``.
    learning_rate : float or LinearSchedule
        The optimizer's step size.
    steps : int
        Number of gradient steps. The default suits soft labels. With hard labels the policy
        overfits: with 3,000 pairs of the arithmetic task, 150 steps reach a higher objective than
        600.
    minibatch_size : int
        Pairs per step, drawn without replacement from a shuffled order, epoch by epoch.
    optimizer : Optimizer
        Turns each minibatch's gradient into a step.
    """

    beta: Annotated[float, _require_beta] = 0.3
    loss: Annotated[str | PreferenceLoss, _require_loss] = "dpo"
    learning_rate: PositiveSchedule = LinearSchedule(0.1)
    steps: Annotated[int, _require_steps] = 600
    minibatch_size: Count = 512
    optimizer: CheckedOptimizer = Adam()

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def preference_loss(self) -> PreferenceLoss:
        """The value of `loss`, also if it was given as a name."""
        return PREFERENCE_LOSSES[self.loss] if isinstance(self.loss, str) else self.loss

    def loss_and_gradient(
        self,
        policy: Policy,
        first: Paths,
        second: Paths,
        reference_log_probs: np.ndarray,
        labels: np.ndarray,
        kl: float = 0.0,
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """The loss of M pairs, for example (3), its gradient (P,), and the margins (M,).

        For DPO and IPO, margin = beta (log pi(y_1|x) - log pi(y_2|x) - (log pi_ref(y_1|x) -
        log pi_ref(y_2|x))), as in (2).

        Parameters
        ----------
        policy : Policy
        first, second : Paths
            The tokens of the first and of the second response of each of M pairs.
        reference_log_probs : ndarray (2, M)
            log pi_ref(y_1|x) and log pi_ref(y_2|x), in nats.
        labels : ndarray (M,)
            Probabilities that the first response is preferred, in [0, 1].
        kl : float
            `mismatched_kl`, for KTO.
        """
        first_log_probs, first_cache = path_log_probs(policy, first)
        second_log_probs, second_cache = path_log_probs(policy, second)
        pairs = PairLogProbs(
            np.stack([first_log_probs, second_log_probs]),
            reference_log_probs,
            np.stack([first.valid.sum(axis=1), second.valid.sum(axis=1)]),
            labels,
            kl,
        )
        loss, d_log_probs, margins = self.preference_loss.evaluate(pairs, self.beta)
        gradient = path_gradient(policy, first, first_cache, d_log_probs[0])
        gradient += path_gradient(policy, second, second_cache, d_log_probs[1])
        return loss, gradient, margins

    def fit(
        self,
        task: TokenTask,
        reference: Policy,
        preferences: Preferences | FreshPairs,
        rng: np.random.Generator,
        *,
        measure: Measure | None = None,
        progress: bool = False,
    ) -> DPOResult:
        """Align a copy of the reference to preferences by gradient steps on the loss.

        Parameters
        ----------
        task : TokenTask
        reference : Policy
            The policy at the first step, and pi_ref in the loss. It is not changed.
        preferences : Preferences or FreshPairs
            Pairs of answers of `task`. `FreshPairs` are drawn from the current policy whenever all
            pairs have been used once (online DPO); then `minibatch_size` must divide their number.
        rng : Generator
            Shuffles the pairs, and draws and labels fresh ones.
        measure : callable, optional
            measure(policy) returns a dict of numbers to record before each step; it may be empty.
        progress : bool
            Show a progress bar.

        Raises
        ------
        ValueError
            For a prompt or response that the task does not have, an answer to which the reference
            gives probability 0, or fresh pairs whose number the minibatches do not divide.
        """
        require_model(task, reference)
        size = min(self.minibatch_size, len(preferences))
        # (1) tokens of both answers and their log-probabilities under the reference, computed once
        if isinstance(preferences, Preferences):
            data = _prepared(task, reference, preferences)
        elif len(preferences) % size:
            raise ValueError(
                f"minibatch_size must divide the {len(preferences)} fresh pairs, got "
                f"{self.minibatch_size}: the annotator's labels of the others would be lost"
            )
        # (2) start at the reference: all margins 0, the loss log 2
        policy, state = reference, self.optimizer.init(reference.parameters)
        rows: list[dict[str, float]] = []
        order = np.zeros(0, dtype=np.int64)
        with one_core():
            for step in tqdm(range(self.steps), unit="step", disable=not progress):
                row = measure(policy) if measure else {}
                # (3) the next pairs of the shuffled order; online, of pairs by the current policy
                if len(order) < size:
                    if isinstance(preferences, FreshPairs):
                        data = _prepared(task, reference, preferences.draw(policy, rng))
                    order = rng.permutation(len(preferences))
                pairs, order = order[:size], order[size:]
                labels = data.preferences.labels[pairs]
                kl = 0.0
                if self.preference_loss.uses_kl:
                    kl = mismatched_kl(task, policy, reference, data.preferences.rows(pairs))
                # (4) margins, loss and gradient
                loss, gradient, margins = self.loss_and_gradient(
                    policy,
                    Paths(*(column[pairs] for column in data.first)),
                    Paths(*(column[pairs] for column in data.second)),
                    data.reference_log_probs[:, pairs],
                    labels,
                    kl,
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


class _Prepared(NamedTuple):
    """Pairs, their tokens, and their log-probabilities (2, M) under the reference."""

    preferences: Preferences
    first: Paths
    second: Paths
    reference_log_probs: np.ndarray


def _prepared(task: TokenTask, reference: Policy, preferences: Preferences) -> _Prepared:
    """Raises ValueError if the reference gives an answer probability 0."""
    _require_of_task(task, preferences)
    first = task.paths(preferences.prompts, preferences.first)
    second = task.paths(preferences.prompts, preferences.second)
    reference_log_probs = np.stack(
        [path_log_probs(reference, paths)[0] for paths in (first, second)]
    )
    finite = np.isfinite(reference_log_probs).all(axis=0)
    if not finite.all():
        raise ValueError(
            f"reference gives probability 0 to an answer of pair {int(np.argmin(finite))}: it has "
            "no log-ratio; smooth the reference"
        )
    return _Prepared(preferences, first, second, reference_log_probs)


def probability_masses(
    task: TokenTask, policy: Policy, preferences: Preferences
) -> dict[str, float]:
    """The probability of chosen, rejected and unseen answers, exact, mean over prompts.

    The mass of a set S of answers is mean_x sum over y in S of pi(y|x). DPO raises the chosen
    answers only *relative* to the rejected ones. The probabilities of both may fall, in favour of
    answers that occur in no pair.

    Returns
    -------
    dict
        The mass of the answers that were only "chosen", only "rejected", sometimes chosen and
        sometimes rejected ("both"), or in no pair ("unseen"). The four numbers sum to 1.

    Raises
    ------
    ValueError
        For a label that is not 0 or 1, or a prompt or response that the task does not have.
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
    often=("path_log_probs", "path_gradient", "mismatched_kl", "DPO.loss_and_gradient"),
)
