"""What benchmarks/control/swimmer.py does without MuJoCo and without sb3-contrib."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.control import swimmer as swimmer_script


@pytest.fixture
def swimmer(monkeypatch, tmp_path):
    stored = replace(swimmer_script.STUDY, path=tmp_path / "swimmer.csv")
    monkeypatch.setattr(swimmer_script, "STUDY", stored)
    return swimmer_script


def test_the_table_counts_the_runs_above_the_bound_and_tests_the_difference(swimmer):
    blocks = [0.0] * (len(swimmer.STUDY.values) - 1)
    for library, scores in (("minirl", [350, 100, 120, 90]), ("sb3-contrib", [340] * 4)):
        for seed, score in enumerate(scores):
            swimmer.STUDY.append([[library, seed, *blocks, float(score)]])
    table = swimmer.table()
    assert "| minirl | 1 of 4 |  | 165 [" in table
    # Fisher's exact test by hand: of C(8, 5) = 56 ways, 4 give 1 and 4, and 4 give 4 and 1.
    assert "| sb3-contrib | 4 of 4 | p = 0.14 | 340 [340, 340] | 340, 340, 340, 340 |" in table


def test_a_line_holds_means_of_blocks_of_episodes(swimmer, monkeypatch):
    episodes = np.repeat([1.0, 2.0, 3.0], 20)
    monkeypatch.setattr(swimmer, "sb3_returns", lambda item: episodes)
    assert swimmer.run(swimmer.Item("sb3-contrib", 4)) == ["1", "2", "3"]
    assert len(swimmer.STUDY.values) == 15


def test_damping_shortens_the_step_where_it_says_so(swimmer, monkeypatch):
    monkeypatch.setattr(swimmer, "ENVIRONMENT", "Pendulum-v1")
    monkeypatch.setattr(swimmer, "STEPS", 6_000)
    plain, damped, again = (
        swimmer.minirl_returns(swimmer.Item(library, 0))
        for library in ("minirl", swimmer.DAMPED, "minirl")
    )
    np.testing.assert_array_equal(plain, again)
    assert not np.array_equal(plain, damped)


def test_runs_differ_in_what_they_name(swimmer):
    minirl, damped, nearsighted, sb3 = (
        swimmer.choices(swimmer.Item(library, 0)) for library in swimmer.LIBRARIES
    )
    assert minirl == damped == sb3
    algorithm, settings = minirl
    assert settings.advantages.discount == settings.reward_transform.discount == 0.9999
    assert (algorithm.cg_iterations, algorithm.damping, algorithm.max_kl) == (25, 0.1, 0.01)
    assert nearsighted[0] == algorithm
    assert nearsighted[1].advantages.discount == nearsighted[1].reward_transform.discount == 0.99
