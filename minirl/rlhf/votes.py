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
    log2(1 + 4) = 2.32 and log2(1 + 5) = 2.58 are rounded apart. Acceptance helps no answer that
    people voted down.

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
            "accepted must be one truth value or as many as upvotes, of shape "
            f"{upvotes.shape}, got {accepted.shape}"
        )
    liked = np.rint(np.log2(1.0 + np.maximum(upvotes, 0))) + accepted
    return np.where(upvotes < 0, -1, liked).astype(np.int64)


class Questions(NamedTuple):
    """Q questions with A answers each, and what people made of them.

    Attributes
    ----------
    prompts : ndarray (Q,) of int
    responses : ndarray (Q, A) of int
    upvotes : ndarray (Q, A) of int
        Votes for minus votes against.
    accepted : ndarray (Q, A) of bool
        Whether the one who asked took this answer; at most one a question.
    """

    prompts: np.ndarray
    responses: np.ndarray
    upvotes: np.ndarray
    accepted: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """The StackExchange scores (Q, A)."""
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

    An answer gets round(2^(utility + normal noise)) - 1 votes: each unit of utility doubles them,
    and a score is about the utility again. Half of those who ask come back to accept an answer, the
    one they like best by utility + a noise of their own.

    Parameters
    ----------
    count, answers : int
        Q and A; prompts are drawn uniformly, answers may be identical.
    noise : float
        Standard deviation, in units of utility.

    Raises
    ------
    ValueError
        If an answer would get 2^62 votes or more, which 64 bits do not hold: scale the utilities
        down.
    """
    require_count("count", count)
    require_count("answers", answers)
    require_non_negative("noise", noise)
    prompts = rng.integers(len(task.prompts), size=count)
    asked = np.repeat(prompts, answers)
    responses = sample_responses(task, policy, asked, rng).reshape(count, answers)
    utilities = task.utilities[prompts[:, None], responses]
    crowd, asker = utilities + noise * rng.standard_normal((2, count, answers))
    if not crowd.max() < _MOST_DOUBLINGS:
        raise ValueError(
            f"utility + noise must be below {_MOST_DOUBLINGS}, since an answer gets 2^(utility + "
            f"noise) votes, got {crowd.max():.3g} (the largest utility is "
            f"{task.utilities.max():.3g}); scale the task's utilities down, or the noise"
        )
    upvotes = np.rint(np.exp2(crowd)).astype(np.int64) - 1
    favourite = asker.argmax(axis=1)[:, None]
    accepted = (np.arange(answers) == favourite) & (rng.random((count, 1)) < 0.5)
    return Questions(prompts, responses, upvotes, accepted)


class ScoredPairs(NamedTuple):
    """Preferences from scores, and the pairs that were left out.

    Attributes
    ----------
    preferences : Preferences
        Hard labels: the answer with the higher score is preferred.
    identical : int
        Pairs of the same answer, whatever their scores.
    tied : int
        Pairs of different answers with equal scores.
    over_limit : int
        Pairs that would have served but were too many for their question.
    """

    preferences: Preferences
    identical: int
    tied: int
    over_limit: int


def pairs_from_scores(
    questions: Questions, rng: np.random.Generator, *, limit: int = 10
) -> ScoredPairs:
    """All pairs of answers to the same question with unequal scores, at most `limit` of them.

    Where there are more, `limit` are chosen at random without repetition. The answer given first
    stands first.

    Raises
    ------
    ValueError
        If no pair is left.

    References
    ----------
    Beeching et al., "StackLLaMA" (2023), with its limit of ten pairs a question.
    """
    require_count("limit", limit)
    one, other = np.triu_indices(questions.responses.shape[1], k=1)
    first, second = questions.responses[:, one], questions.responses[:, other]
    ahead = questions.scores[:, one] - questions.scores[:, other]
    identical = first == second
    useful = ~identical & (ahead != 0)
    lots = np.where(useful, rng.random(useful.shape), np.inf)
    kept = useful & (lots.argsort(axis=1).argsort(axis=1) < limit)
    if not kept.any():
        raise ValueError(
            "questions must hold two different answers with unequal scores at least once, got "
            f"{identical.sum()} identical pairs and {(~identical & ~useful).sum()} ties"
        )
    prompts = np.broadcast_to(questions.prompts[:, None], kept.shape)
    return ScoredPairs(
        Preferences(prompts[kept], first[kept], second[kept], ahead[kept] > 0),
        identical=int(identical.sum()),
        tied=int((~identical & ~useful).sum()),
        over_limit=int((useful & ~kept).sum()),
    )


check_arguments(__name__)
