"""A row of states with a small prize just behind the start and a large one far ahead.

::

    0.1 <- [0] - [1] - [2] - [3] - [4] -> 1.0
"""

import numpy as np

from minirl.envs.toy_text import Table, ToyText
from minirl.support.arguments import check_arguments

LEFT, RIGHT = 0, 1
LEFT_PRIZE, RIGHT_PRIZE = 0.1, 1.0


class Chain(ToyText):
    """A walk along `length` states, with an exit at either end.

    Action 0 moves left and action 1 moves right, but with probability `slip` the move is the
    opposite one. Leaving at the left end terminates with reward 0.1, and leaving at the right end
    terminates with reward 1. Every other step has reward 0. The observation after an exit is the
    end state that was left. The value of this state is not 0, so bootstrapping there is an error.

    With ``endless=True`` there are no exits: a move beyond an end stays there, every step has
    reward 1, and the value of every state is ``1 / (1 - discount)``.

    Parameters
    ----------
    length : int
        Number of states S, at least 1.
    slip : float
        Probability in [0, 1] that the opposite move is made.
    start : int
        State in which every episode begins.
    endless : bool
        Whether there are no exits and every step has reward 1.

    Attributes
    ----------
    P : dict
        ``P[state][action]`` is the list of ``(probability, next_state, reward, terminated)``
        from which `step` samples (the format of Gymnasium's toy-text environments).
    initial_state_distrib : ndarray (S,)
        Probability of each first state.

    Raises
    ------
    ValueError
        If a parameter is outside its range.

    Examples
    --------
    >>> Chain(length=3, slip=0.25).P[2][RIGHT]
    [(0.75, 2, 1.0, True), (0.25, 1, 0.0, False)]
    """

    def __init__(
        self, length: int = 5, slip: float = 0.1, start: int = 0, endless: bool = False
    ) -> None:
        if not isinstance(length, int | np.integer) or length < 1:
            raise ValueError(f"length must be a whole number of at least 1, got {length!r}")
        if not isinstance(slip, int | float | np.floating) or not 0.0 <= slip <= 1.0:
            raise ValueError(f"slip must be a probability in [0, 1], got {slip!r}")
        if not isinstance(start, int | np.integer) or not 0 <= start < length:
            raise ValueError(f"start must be a state 0 .. {length - 1}, got {start!r}")
        super().__init__(_table(length, slip, endless), np.eye(length)[start])


def _table(length: int, slip: float, endless: bool) -> Table:
    """All outcomes, ``table[state][action] = [(probability, next_state, reward, terminated)]``."""

    def walk(state: int, move: int) -> tuple[int, float, bool]:
        next_state = state + (1 if move == RIGHT else -1)
        if endless:
            return min(max(next_state, 0), length - 1), 1.0, False
        if next_state < 0:
            return state, LEFT_PRIZE, True
        if next_state == length:
            return state, RIGHT_PRIZE, True
        return next_state, 0.0, False

    return {
        state: {
            action: [(1.0 - slip, *walk(state, action)), (slip, *walk(state, 1 - action))]
            for action in (LEFT, RIGHT)
        }
        for state in range(length)
    }


check_arguments(__name__)
