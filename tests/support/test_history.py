import csv
import gc
import io
import pickle
import tracemalloc

import numpy as np
import pytest
from helpers import make_rollout

from minirl.support import metrics
from minirl.support.history import History, ReturnReached


def rollout(valid, ends=(), returns=(), lengths=()):
    """A rollout of one environment: which rows count, and the episodes that ended in it."""
    return make_rollout(
        (len(valid), 1),
        valid=np.array(valid, bool)[:, None],
        episode_ends=np.array(ends, int),
        episode_returns=np.array(returns, float),
        episode_lengths=np.array(lengths, int),
    )


def history_of(returns, length=10):
    """One update an episode, each of `length` steps."""
    history = History()
    for value in returns:
        history.record(rollout([1] * length, [length], [value], [length]), {}, 0.0)
    return history


def test_two_updates_worked_by_hand():
    history = History()
    # three transitions and a reset row; one episode of two steps ended
    history.record(rollout([1, 1, 0, 1], [2], [5.0], [2]), {"kl": 0.25}, 1.5)
    # four transitions; the running episode ends after 3 more, so 4 steps long
    history.record(rollout([1, 1, 1, 0, 1], [3], [-1.0], [4]), {"entropy": 0.5}, 2.5)

    assert history.environment_steps == 7
    assert history.finished_episodes == 2
    np.testing.assert_array_equal(history.episode_ends, [2, 6])
    np.testing.assert_array_equal(history.episode_returns, [5.0, -1.0])
    np.testing.assert_array_equal(history.episode_lengths, [2, 4])
    np.testing.assert_equal(
        {name: list(column) for name, column in history.columns().items()},
        {
            "environment_steps": [3, 7],
            "episodes": [1, 2],
            "mean_return": [5.0, 2.0],
            "cpu_seconds": [1.5, 2.5],
            "kl": [0.25, np.nan],
            "entropy": [np.nan, 0.5],
        },
    )
    assert history.final_return() == 2.0


def test_nothing_recorded():
    history = History()
    assert history.environment_steps == history.finished_episodes == 0
    assert history.columns() == {}
    assert len(history.episode_returns) == 0
    assert np.isnan(history.final_return())
    assert history.steps_to(0.0) is None
    assert history.to_csv().strip() == ""
    history.record(rollout([1, 1]), {}, 0.0)  # before the first episode ends
    assert np.isnan(history.rows[0]["mean_return"])
    assert history.rows[0]["episodes"] == 0
    assert np.isnan(history.final_return())


def test_mean_and_final_return_look_at_the_last_hundred_episodes():
    history = history_of([1000.0] * 3 + [1.0] * 60 + [3.0] * 40)
    assert history.final_return() == pytest.approx((60 * 1 + 40 * 3) / 100, rel=1e-12)
    assert history.rows[-1]["mean_return"] == history.final_return()
    # one update earlier the window still holds the last of the three
    assert history.rows[-2]["mean_return"] == pytest.approx((1000 + 60 * 1 + 39 * 3) / 100)
    assert history.rows[1]["mean_return"] == 1000.0  # of all, if fewer
    history = History()
    for value in (1.0, 3.0):  # updates that finish many
        ends = np.arange(1, 61)
        history.record(rollout([1] * 60, ends, np.full(60, value), np.ones(60)), {}, 0.0)
    assert history.final_return() == pytest.approx((40 * 1 + 60 * 3) / 100)


def test_gradient_equivalents_are_totals_and_other_metrics_are_not():
    """A total may begin late; an update that reports none leaves it as it was."""
    history, spent = History(), {"gradient_equivalents": 10.0, "kl": 0.5}
    for update in ({"critic_gradient_equivalents": 4.0}, spent, {}, spent):
        history.record(rollout([1]), update, 0.0)
    columns = history.columns()
    np.testing.assert_array_equal(columns["gradient_equivalents"], [np.nan, 10, 10, 20])
    np.testing.assert_array_equal(columns["critic_gradient_equivalents"], [4, 4, 4, 4])
    np.testing.assert_array_equal(columns["kl"], [np.nan, 0.5, np.nan, 0.5])
    assert spent == {"gradient_equivalents": 10.0, "kl": 0.5}


def test_unknown_metrics_are_refused_by_name_and_nothing_is_recorded():
    history = History()
    with pytest.raises(KeyError, match=r"'cheerfulness'.*GLOSSARY"):
        history.record(rollout([1], [1], [1.0], [1]), {"kl": 0.1, "cheerfulness": 1.0}, 0.0)
    assert history.rows == []
    assert len(history.episode_returns) == 0


def test_rows_read_like_a_list_of_dictionaries():
    history = History()
    reported = [{"kl": 0.25}, {"entropy": 0.5, "kl": float("nan")}, {}]
    for update in reported:
        history.record(rollout([1], [1], [1.0], [1]), update, 0.0)
    rows = list(history.rows)
    assert [list(row)[4:] for row in rows] == [list(update) for update in reported]
    assert rows[0]["kl"] == 0.25
    assert np.isnan(rows[1]["kl"])
    assert history.rows[-1] == history.rows[2] == rows[2] == next(reversed(history.rows))
    assert history.rows[:-1][0] == rows[0]
    assert history.rows[-2:][0].keys() == rows[1].keys()
    with pytest.raises(IndexError):
        history.rows[3]
    again = pickle.loads(pickle.dumps(history))
    assert again.rows[0] == rows[0]
    assert again.rows != history.rows[:1]
    assert again.environment_steps == 3


def test_memory_grows_by_eight_bytes_per_number():
    names = list(metrics.GLOSSARY)[4:20]
    update = dict.fromkeys(names, 0.1)
    history, step = History(), rollout([1] * 8, [8], [8.0], [8])
    history.record(step, update, 0.0)  # what is taken once
    gc.collect()
    tracemalloc.start()
    for _ in range(2000):
        history.record(step, {name: value + 1e-9 for name, value in update.items()}, 0.0)
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0] / 2000
    tracemalloc.stop()
    assert taken < 1.3 * 8 * (len(history.rows[0]) + 3 + 2)  # arrays grow ahead by an eighth


def test_steps_to_a_threshold_worked_by_hand():
    # episodes 1..50 earn 0, episodes 51..150 earn 10; each takes 10 steps
    history = history_of([0.0] * 50 + [10.0] * 100)
    assert history.steps_to(-1.0) == 1000  # not before there are 100 episodes
    assert history.steps_to(5.0) == 1000  # 50 of the first 100
    assert history.steps_to(5.01) == 1010
    assert history.steps_to(7.0) == 1200  # 70 of episodes 21..120
    assert history.steps_to(10.0) == 1500
    assert history.steps_to(10.001) is None


@pytest.mark.parametrize("value", [0.1, 0.7, -0.7, 1 / 3, 475.3, -110.1, 0.0])
def test_equal_returns_at_the_threshold_reach_it(value):
    history = history_of([value] * 100 + [value - 10] * 100)
    assert history.steps_to(value) == 1000  # the first time, though it was lost again
    assert history_of([value] * 100).steps_to(value) == 1000
    assert history.steps_to(value + 1e-4) is None
    assert history.final_return() == pytest.approx(value - 10)


def test_a_return_is_reached_by_a_mean_of_100_episodes():
    assert ReturnReached(22.0)(history_of([0.0] + [22.0] * 100))
    assert ReturnReached(22.0)(history_of([22.0] * 100))
    assert not ReturnReached(22.0)(history_of([22.0] * 99))
    assert not ReturnReached(22.1)(history_of([22.0] * 100))
    with pytest.raises(ValueError, match="target must be a finite number, got nan"):
        ReturnReached(float("nan"))


def test_csv_gives_every_number_back():
    history = History()
    history.record(rollout([1, 1]), {"kl": 0.1 + 0.2}, 1 / 3)
    history.record(rollout([1], [1], [np.pi], [3]), {"entropy": 1e-300}, 1e5)
    rows = list(csv.DictReader(io.StringIO(history.to_csv())))
    columns = history.columns()
    assert list(rows[0]) == list(columns)
    for name, values in columns.items():
        read = [float(row[name]) if row[name] else np.nan for row in rows]
        np.testing.assert_array_equal(read, values)
    assert rows[0]["mean_return"] == rows[1]["kl"] == ""
    assert "nan" not in history.to_csv()
    assert history.to_csv().count("\n") == 3
    assert "\r" not in history.to_csv()
