"""Preferences from votes: answers to questions, scored as on StackExchange.

The score of an answer is round(log2(1 + upvotes)) + (1 if accepted), or -1 for negative upvotes. Of
two answers to one question, the one with the higher score is preferred.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from minirl.envs.token_tasks import TokenTask
from minirl.policy import Policy
from minirl.rlhf.language_model import sample_responses
from minirl.rlhf.preferences import Preferences
from minirl.support.arguments import check_arguments
from minirl.support.validation import require_count, require_non_negative

# 2^62 votes still fit into an int64.
_MOST_DOUBLINGS = 62


def stack_exchange_score(upvotes: ArrayLike, accepted: ArrayLike) -> np.ndarray:
    """-1 if upvotes < 0, else round(log2(1 + upvotes)) + (1 if accepted); elementwise, int.

    References
    ----------
    Askell et al., "A general language assistant as a laboratory for alignment" (2021); Beeching et
    al., "StackLLaMA" (2023).

    Examples
    --------
    log2(1 + 4) = 2.32 and log2(1 + 5) = 2.58 are rounded to 2 and 3. Acceptance does not change the
    score of an answer with negative upvotes.

    >>> stack_exchange_score([0, 1, 4, 5], False)
    array([0, 1, 2, 3])
    >>> stack_exchange_score([0, 1, 4, -2], True)
    array([ 1,  2,  3, -1])
    """
    upvotes = np.asarray(upvotes)
    if not np.isfinite(upvotes).all():
        raise ValueError("upvotes must be finite numbers, got NaN or inf")
    # 1.0, not 1: the largest int64 has no successor.
    accepted = np.asarray(accepted, dtype=bool)
    if accepted.ndim and accepted.shape != upvotes.shape and upvotes.ndim:
        raise ValueError(
            "accepted must be one truth value, or one per number of upvotes with shape "
            f"{upvotes.shape}, got {accepted.shape}"
        )
    score = np.rint(np.log2(1.0 + np.maximum(upvotes, 0))) + accepted
    return np.where(upvotes < 0, -1, score).astype(np.int64)


class Questions(NamedTuple):
    """Q questions with A answers each, their votes and the accepted answers.

    Attributes
    ----------
    prompts : ndarray (Q,) of int
        Number of each question's prompt.
    responses : ndarray (Q, A) of int
        Numbers of the answers.
    upvotes : ndarray (Q, A) of int
        Votes for an answer minus votes against it.
    accepted : ndarray (Q, A) of bool
        Whether the person who asked accepted this answer; at most one per question.
    """

    prompts: np.ndarray
    responses: np.ndarray
    upvotes: np.ndarray
    accepted: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """The scores round(log2(1 + upvotes)) + (1 if accepted) (Q, A); -1 for upvotes < 0."""
        return stack_exchange_score(self.upvotes, self.accepted)


def sample_questions(
    task: TokenTask,
    policy: Policy,
    count: int,
    rng: np.random.Generator,
    *,
    answers: int = 6,
    noise: float = 1.0,
) -> Questions:
    """Questions answered by the policy, with votes that follow the task's utility.

    An answer gets round(2^(utility + noise)) - 1 votes with normal noise. Each unit of utility
    doubles them, so that a score is approximately the utility. For half of the questions an answer
    is accepted: the one with the largest utility + noise, where this noise is independent of that
    of the votes.

    Parameters
    ----------
    task : TokenTask
    policy : Policy
        Writes the answers.
    count, answers : int
        Q and A. Prompts are drawn uniformly, and answers may be identical.
    rng : Generator
    noise : float
        Standard deviation of both noises, in units of utility.

    Raises
    ------
    ValueError
        If an answer would get 2^62 votes or more, which exceeds 64 bits: scale the utilities down.
    """
    require_count("count", count)
    require_count("answers", answers)
    require_non_negative("noise", noise)
    prompts = rng.integers(len(task.prompts), size=count)
    asked = np.repeat(prompts, answers)
    responses = sample_responses(task, policy, asked, rng).reshape(count, answers)
    utilities = task.utilities[prompts[:, None], responses]
    voters, asker = utilities + noise * rng.standard_normal((2, count, answers))
    if not voters.max() < _MOST_DOUBLINGS:
        raise ValueError(
            f"utility + noise must be below {_MOST_DOUBLINGS}, since an answer gets 2^(utility + "
            f"noise) votes, got {voters.max():.3g} (the largest utility is "
            f"{task.utilities.max():.3g}); scale the task's utilities down, or the noise"
        )
    upvotes = np.rint(np.exp2(voters)).astype(np.int64) - 1
    favourite = asker.argmax(axis=1)[:, None]
    accepted = (np.arange(answers) == favourite) & (rng.random((count, 1)) < 0.5)
    return Questions(prompts, responses, upvotes, accepted)


class ScoredPairs(NamedTuple):
    """Preferences from scores, and the numbers of pairs that were left out.

    Attributes
    ----------
    preferences : Preferences
        Hard labels: the answer with the higher score is preferred.
    identical : int
        Number of pairs of identical answers, independent of their scores.
    tied : int
        Number of pairs of different answers with equal scores.
    over_limit : int
        Number of usable pairs left out because their question had more than the limit.
    """

    preferences: Preferences
    identical: int
    tied: int
    over_limit: int


def pairs_from_scores(
    questions: Questions, rng: np.random.Generator, *, limit: int = 10
) -> ScoredPairs:
    """Pairs of answers to the same question with unequal scores, at most `limit` per question.

    The answer with the higher score is preferred. If a question has more pairs, `limit` of them are
    chosen at random without repetition. The first answer of a pair is the one that was given first.

    Raises
    ------
    ValueError
        If there is no usable pair.

    References
    ----------
    Beeching et al., "StackLLaMA" (2023), which also has a limit of ten pairs per question.
    """
    require_count("limit", limit)
    one, other = np.triu_indices(questions.responses.shape[1], k=1)
    first, second = questions.responses[:, one], questions.responses[:, other]
    difference = questions.scores[:, one] - questions.scores[:, other]
    identical = first == second
    usable = ~identical & (difference != 0)
    # A random order of the usable pairs per question; the others come last.
    order = np.where(usable, rng.random(usable.shape), np.inf)
    selected = usable & (order.argsort(axis=1).argsort(axis=1) < limit)
    if not selected.any():
        raise ValueError(
            "questions must hold two different answers with unequal scores at least once, got "
            f"{identical.sum()} identical pairs and {(~identical & ~usable).sum()} ties"
        )
    prompts = np.broadcast_to(questions.prompts[:, None], selected.shape)
    labels = difference[selected] > 0
    return ScoredPairs(
        Preferences(prompts[selected], first[selected], second[selected], labels),
        identical=int(identical.sum()),
        tied=int((~identical & ~usable).sum()),
        over_limit=int((usable & ~selected).sum()),
    )


check_arguments(__name__)
