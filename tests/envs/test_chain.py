"""Chain: the published table is the documented walk, and steps are drawn from it."""

from collections import Counter

import numpy as np
import pytest

from minirl.envs.chain import LEFT, RIGHT, Chain


def test_table_of_a_short_chain_by_hand():
    assert Chain(length=2, slip=0.25).P == {
        0: {
            LEFT: [(0.75, 0, 0.1, True), (0.25, 1, 0.0, False)],
            RIGHT: [(0.75, 1, 0.0, False), (0.25, 0, 0.1, True)],
        },
        1: {
            LEFT: [(0.75, 0, 0.0, False), (0.25, 1, 1.0, True)],
            RIGHT: [(0.75, 1, 1.0, True), (0.25, 0, 0.0, False)],
        },
    }


def test_steps_are_drawn_from_the_table():
    env, draws = Chain(length=3, slip=0.3), 2000
    env.reset(seed=0)
    for state in env.P:
        for action in (LEFT, RIGHT):
            counts = Counter()
            for _ in range(draws):
                env.state = state
                observation, reward, terminated, truncated, _ = env.step(action)
                assert not truncated
                assert env.state == observation
                counts[observation, reward, terminated] += 1
            assert counts.total() == draws
            assert len(counts) == 2
            for probability, *outcome in env.P[state][action]:
                sigma = np.sqrt(draws * probability * (1 - probability))
                assert abs(counts[tuple(outcome)] - draws * probability) < 4 * sigma


def test_endless_chain_always_earns_one_and_never_ends():
    outcomes = [o for row in Chain(endless=True).P.values() for os in row.values() for o in os]
    assert all(reward == 1.0 and not terminated for _, _, reward, terminated in outcomes)
    assert {next_state for _, next_state, _, _ in outcomes} == set(range(5))


def test_episodes_begin_at_start():
    env = Chain(length=4, start=2)
    assert {env.reset(seed=seed)[0] for seed in range(20)} == {2}
    np.testing.assert_array_equal(env.initial_state_distrib, [0, 0, 1, 0])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"length": 0}, "length"),
        ({"slip": 1.5}, "slip"),
        ({"slip": np.nan}, "slip"),
        ({"start": 5}, r"start must be a state 0 \.\. 4, got 5"),
        ({"start": -1}, "start"),
        ({"length": 2.5}, "length must be"),
        ({"start": None}, "start must be"),
        ({"slip": "0.1"}, "slip must be a probability"),
    ],
)
def test_wrong_parameters_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Chain(**kwargs)
