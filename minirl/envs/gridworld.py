"""A world drawn as text: walls, goals, pits, and moves that may turn sideways.

The default is the 4 x 3 world of Russell and Norvig, *Artificial Intelligence: A Modern Approach*
(the chapter on making complex decisions), which prints its optimal values.
"""

import numpy as np
from numpy.typing import NDArray

from minirl.envs.toy_text import Table, ToyText
from minirl.support.arguments import check_arguments

DEFAULT_LAYOUT = """
...G
.#.X
S...
"""
FLOOR, START, WALL, GOAL, PIT = ".", "S", "#", "G", "X"
EXIT_REWARD = {GOAL: 1.0, PIT: -1.0}
MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))  # left, down, right, up as (row, column)


class GridWorld(ToyText):
    """A walk over a map from a start to a goal that avoids the pits.

    The state is the cell, counted row by row from the top left. Actions are 0 left, 1 down,
    2 right, 3 up; with probability `slip` the move turns a quarter to the left or to the right
    (half each). A move into a wall or off the map stays where it is. Every step costs
    `step_cost`. Entering a goal adds a reward of 1, entering a pit adds -1, and both terminate.

    Parameters
    ----------
    layout : str
        One line per row: ``.`` floor, ``S`` start (if there are several, one is drawn), ``#`` wall,
        ``G`` goal, ``X`` pit. White space around the rows is ignored.
    slip : float
        Probability in [0, 1] that the move is sideways.
    step_cost : float
        Subtracted from the reward of each step; any finite number.

    Attributes
    ----------
    grid : ndarray (rows, columns)
        The map, one character per cell.
    P : dict
        ``P[state][action]`` is the list of ``(probability, next_state, reward, terminated)``
        from which `step` samples (the format of Gymnasium's toy-text environments). Walls, goals
        and pits, in which no step is ever taken, terminate at once with reward 0.
    initial_state_distrib : ndarray (S,)
        Probability of each first state.

    Raises
    ------
    ValueError
        If `layout` has rows of different lengths, unknown characters, no start, no goal, or a
        cell from which no goal can be reached; or if a number is outside its range.

    Examples
    --------
    >>> GridWorld("SG", slip=0.0, step_cost=0.25).P[0][2]
    [(1.0, 1, 0.75, True), (0.0, 0, -0.25, False), (0.0, 0, -0.25, False)]
    """

    def __init__(
        self, layout: str = DEFAULT_LAYOUT, slip: float = 0.2, step_cost: float = 0.04
    ) -> None:
        if not isinstance(layout, str):
            raise ValueError(f"layout must be text, one line per row, got {layout!r:.60}")
        if not isinstance(slip, int | float | np.floating) or not 0.0 <= slip <= 1.0:
            raise ValueError(f"slip must be a probability in [0, 1], got {slip!r}")
        if not isinstance(step_cost, int | float | np.floating) or not np.isfinite(step_cost):
            raise ValueError(f"step_cost must be a finite number, got {step_cost!r}")
        self.grid = _parse(layout)
        starts = (self.grid == START).ravel()
        super().__init__(_table(self.grid, slip, step_cost), starts / starts.sum())


def _parse(layout: str) -> NDArray[np.str_]:
    """The checked map (rows, columns), one character per cell."""
    rows = layout.split()
    if len({len(row) for row in rows}) != 1:
        raise ValueError(f"layout must have rows of one length, got {[len(row) for row in rows]}")
    grid = np.array([list(row) for row in rows])
    unknown = sorted(set(grid.ravel().tolist()) - {FLOOR, START, WALL, GOAL, PIT})
    if unknown:
        raise ValueError(f"layout may hold only the characters '.S#GX', got {unknown}")
    for needed in (START, GOAL):
        if needed not in grid:
            raise ValueError(f"layout must hold at least one {needed!r}, got {rows}")
    lost = np.argwhere(np.isin(grid, [FLOOR, START]) & ~_reaches_goal(grid)).tolist()
    if lost:
        raise ValueError(f"layout has cells (row, column) that cannot reach a 'G': {lost}")
    return grid


def _reaches_goal(grid: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Whether a path over open floor leads from each cell to a goal, (rows, columns)."""
    walkable = np.isin(grid, [FLOOR, START])
    reached = grid == GOAL
    for _ in range(grid.size):
        near = np.pad(reached, 1)
        near = near[:-2, 1:-1] | near[2:, 1:-1] | near[1:-1, :-2] | near[1:-1, 2:]
        reached = reached | (near & walkable)
    return np.asarray(reached)


def _table(grid: NDArray[np.str_], slip: float, step_cost: float) -> Table:
    """All outcomes, ``table[state][action] = [(probability, next_state, reward, terminated)]``."""
    rows, columns = grid.shape

    def walk(state: int, direction: int) -> tuple[int, float, bool]:
        row, column = np.add(divmod(state, columns), MOVES[direction]).tolist()
        inside = 0 <= row < rows and 0 <= column < columns
        next_state = row * columns + column if inside and grid[row, column] != WALL else state
        cell = grid.flat[next_state]
        return next_state, EXIT_REWARD.get(cell, 0.0) - step_cost, cell in EXIT_REWARD

    def outcomes(state: int, action: int) -> list[tuple[float, int, float, bool]]:
        if grid.flat[state] not in (FLOOR, START):
            return [(1.0, state, 0.0, True)]
        chances = ((1.0 - slip, action), (slip / 2, (action - 1) % 4), (slip / 2, (action + 1) % 4))
        return [(chance, *walk(state, direction)) for chance, direction in chances]

    return {
        state: {action: outcomes(state, action) for action in range(len(MOVES))}
        for state in range(grid.size)
    }


check_arguments(__name__)
