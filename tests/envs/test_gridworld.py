"""GridWorld: the published table is the documented map, and steps are drawn from it."""

from collections import Counter

import numpy as np
import pytest

from minirl.envs.gridworld import GridWorld

LEFT, DOWN, RIGHT, UP = range(4)


def outcomes(env: GridWorld, state: int, action: int) -> Counter:
    """Probability of each (next_state, reward, terminated), equal outcomes added up."""
    merged: Counter = Counter()
    for probability, next_state, reward, terminated in env.P[state][action]:
        merged[next_state, round(reward, 12), terminated] += probability
    return merged


@pytest.mark.parametrize(
    ("state", "action", "expected"),
    [
        (2, RIGHT, {(3, 0.96, True): 0.8, (2, -0.04, False): 0.1, (6, -0.04, False): 0.1}),
        (6, RIGHT, {(7, -1.04, True): 0.8, (2, -0.04, False): 0.1, (10, -0.04, False): 0.1}),
        (4, RIGHT, {(4, -0.04, False): 0.8, (0, -0.04, False): 0.1, (8, -0.04, False): 0.1}),
        (8, LEFT, {(8, -0.04, False): 0.9, (4, -0.04, False): 0.1}),
        (8, UP, {(4, -0.04, False): 0.8, (8, -0.04, False): 0.1, (9, -0.04, False): 0.1}),
        (11, DOWN, {(11, -0.04, False): 0.9, (10, -0.04, False): 0.1}),
        (3, UP, {(3, 0.0, True): 1.0}),
        (5, UP, {(5, 0.0, True): 1.0}),
    ],
)
def test_default_world_by_hand(state, action, expected):
    assert outcomes(GridWorld(), state, action) == pytest.approx(expected)


def test_one_of_several_starts_is_drawn():
    env = GridWorld("S.G\n..S")
    np.testing.assert_array_equal(env.initial_state_distrib, [0.5, 0, 0, 0, 0, 0.5])
    env.reset(seed=0)
    starts = Counter(env.reset()[0] for _ in range(1000))
    assert set(starts) == {0, 5}
    assert abs(starts[0] - 500) < 4 * np.sqrt(250)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("", "rows of one length"),
        ("S.\nG", r"rows of one length, got \[2, 1\]"),
        ("S?G", r"only the characters '.S#GX', got \['\?'\]"),
        ("..G", "at least one 'S'"),
        ("S.X", "at least one 'G'"),
        ("S#G\n.#.", r"cannot reach a 'G': \[\[0, 0\], \[1, 0\]\]"),
        ("SG.X.", r"cannot reach a 'G': \[\[0, 4\]\]"),
    ],
)
def test_wrong_maps_are_explained(layout, message):
    with pytest.raises(ValueError, match=message):
        GridWorld(layout)


@pytest.mark.parametrize(
    ("name", "value"), [("slip", -0.1), ("step_cost", np.inf), ("slip", "a"), ("layout", 3)]
)
def test_wrong_arguments_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} must"):
        GridWorld(**{name: value})
