"""Rollouts to batches: which rows, in which order, with which weight."""

import itertools
from dataclasses import replace

import helpers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minirl.batch import Batch, flatten

quick = settings(derandomize=True, max_examples=40, deadline=None, database=None)


def make_rollout(valid, time=None):
    """Every entry of every column differs, so that a mix-up shows."""
    cells = np.arange(float(valid.size)).reshape(valid.shape)
    return helpers.make_rollout(
        valid.shape,
        observations=np.stack([cells, -cells], axis=-1),
        actions=cells.astype(int) + 1000,
        log_probs=cells + 0.1,
        rewards=cells + 0.2,
        values=cells + 0.3,
        next_values=cells + 0.4,
        valid=valid,
        time=np.zeros(valid.shape, dtype=int) if time is None else time,
    )


def make_batch(n, seed=0, **columns):
    rng = np.random.default_rng(seed)
    names = ("observations", "actions", "log_probs", "values", "advantages", "returns")
    given_ = {name: rng.normal(size=n) for name in names} | {"weight": rng.uniform(size=n)}
    return Batch(**(given_ | columns))


@quick
@given(arrays(bool, st.tuples(st.integers(1, 5), st.integers(1, 4))), st.data())
def test_flatten_keeps_exactly_the_valid_rows_in_order_of_time(valid, data):
    valid[0, 0] = True
    time = data.draw(arrays(int, valid.shape, elements=st.integers(0, 9)))
    rollout = make_rollout(valid, time)
    signals = np.arange(valid.size).reshape(valid.shape)
    batch = flatten(rollout, signals + 0.5, signals + 0.6, state_discount=0.9, dtype="float64")
    kept = [(t, e) for t in range(valid.shape[0]) for e in range(valid.shape[1]) if valid[t, e]]
    assert len(batch) == len(kept)
    for row, (t, e) in enumerate(kept):
        cell = t * valid.shape[1] + e
        np.testing.assert_array_equal(batch.observations[row], [cell, -cell])
        assert batch.actions[row] == cell + 1000
        assert batch.log_probs[row] == cell + 0.1
        assert batch.values[row] == cell + 0.3
        assert batch.advantages[row] == cell + 0.5
        assert batch.returns[row] == cell + 0.6
        np.testing.assert_allclose(batch.weight[row], 0.9 ** time[t, e] / len(kept), rtol=1e-14)


VALID = np.array([[True, True], [True, False], [False, True], [True, False]])
TIME = np.array([[0, 4], [1, 5], [0, 0], [0, 1]])


def test_weights_average_over_transitions_or_over_episodes_whose_rows_know_their_episode():
    """Five valid rows in two columns."""
    rollout = make_rollout(VALID, TIME)
    signal = np.zeros(VALID.shape)
    batch = flatten(rollout, signal, signal, dtype="float64")
    np.testing.assert_allclose(batch.weight, [1 / 5] * 5, rtol=1e-15)
    assert batch.episodes is None
    batch = flatten(rollout, signal, signal, per="episode", dtype="float64")
    np.testing.assert_array_equal(batch.weight, [1 / 2] * 5)
    assert batch.episodes.tolist() == [0, 1, 0, 1, 0]
    batch = flatten(rollout, signal, signal, per="episode", state_discount=0.5, dtype="float64")
    np.testing.assert_array_equal(batch.weight, [1 / 2, 1 / 32, 1 / 4, 1 / 2, 1 / 2])


@pytest.mark.parametrize(
    ("per", "weights"),
    [
        # columns of three and two valid rows; groups (0, 2) and (1) of seven and two
        ("response", [1 / 9, 1 / 6, 1 / 12, 1 / 9, 1 / 12, 1 / 6, 1 / 12, 1 / 9, 1 / 12]),
        ("group", [1 / 14, 1 / 4, 1 / 14, 1 / 14, 1 / 14, 1 / 4, 1 / 14, 1 / 14, 1 / 14]),
        ("tokens", [1 / 9] * 9),
    ],
)
def test_averages_over_a_response_a_group_and_all_tokens(per, weights):
    valid = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 0, 1]], dtype=bool)
    rollout = replace(make_rollout(valid), group=np.array([0, 1, 0]))
    signal = np.zeros(valid.shape)
    batch = flatten(rollout, signal, signal, per=per, dtype="float64")
    np.testing.assert_allclose(batch.weight, weights, rtol=1e-15)
    assert batch.weight.sum() == pytest.approx(1, rel=1e-14)
    assert batch.episodes.tolist() == [0, 1, 2, 0, 2, 1, 2, 0, 2]
    with pytest.raises(ValueError, match='per="group" needs a rollout with groups'):
        flatten(make_rollout(valid), signal, signal, per="group")


def test_signals_take_the_dtype_observations_and_actions_keep_theirs():
    rollout = make_rollout(VALID)
    signal = np.zeros(VALID.shape)
    for options in ({}, {"dtype": "float64"}):
        batch = flatten(rollout, signal, signal, **options, state_discount=0.9)
        dtype = options.get("dtype", "float32")
        for name in ("log_probs", "values", "advantages", "returns", "weight"):
            assert getattr(batch, name).dtype == dtype, name
        assert batch.observations.dtype == np.float64
        assert batch.actions.dtype == int


def test_no_valid_row_and_a_wrong_per_are_refused():
    signal = np.zeros((2, 2))
    with pytest.raises(ValueError, match="no valid transition"):
        flatten(make_rollout(signal > 0), signal, signal)
    with pytest.raises(ValueError, match="per must be .* got 'Episode'"):
        flatten(make_rollout(signal == 0), signal, signal, per="Episode")


@pytest.mark.parametrize("episodes", [None, np.array([0, 1, 2, 0, 2, 2])])
def test_rows_selects_every_column_alike(episodes):
    batch = make_batch(6, episodes=episodes)
    for selection, rows in ((np.array([4, 0, 4]), [4, 0, 4]), (slice(1, 3), [1, 2])):
        part = batch.rows(selection)
        assert (part.episodes is None) == (episodes is None)
        for name, column in vars(batch).items():
            if column is not None:
                np.testing.assert_array_equal(getattr(part, name), column[rows])


@quick
@given(st.lists(st.integers(1, 5), min_size=1, max_size=25), st.integers(1, 80), st.booleans())
def test_one_epoch_has_every_row_or_whole_episode_once_in_near_equal_parts(lengths, size, whole):
    batch = episode_batch(lengths)
    unit = batch.episodes if whole else np.arange(len(batch))
    batch = batch if whole else replace(batch, episodes=None)
    parts = list(batch.minibatches(size, np.random.default_rng(0)))
    rows = np.concatenate([rows for rows, _ in parts])
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(batch)))
    units = [set(unit[rows].tolist()) for rows, _ in parts]
    total = unit.max() + 1
    assert sorted(itertools.chain(*units)) == list(range(total))  # in one part only
    counts = [len(some) for some in units]
    assert min(counts) >= 1
    assert max(counts) - min(counts) <= 1
    # No other number of parts brings them closer to `size`, on the scale of N / size.
    assert abs(len(parts) - total / size) <= 0.5 or len(parts) == 1
    for (rows, part), count in zip(parts, counts, strict=True):
        np.testing.assert_array_equal(part.observations, rows)
        for name in ("actions", "log_probs", "values", "advantages", "returns"):
            np.testing.assert_array_equal(getattr(part, name), getattr(batch, name)[rows])
        assert (part.episodes is None) == (not whole)
        if whole:
            np.testing.assert_array_equal(part.episodes, batch.episodes[rows])
        np.testing.assert_allclose(part.weight, batch.weight[rows] * total / count, rtol=1e-14)


@pytest.mark.parametrize("episodes", [None, np.arange(50)])
def test_the_order_is_random_and_seeded(episodes):
    batch = make_batch(50, episodes=episodes)

    def drawn(rng):
        return [part.actions.tolist() for _, part in batch.minibatches(25, rng)]

    first, again, other = (drawn(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert sorted(first[0]) != sorted(batch.actions[:25])
    rng = np.random.default_rng(0)
    assert drawn(rng) != drawn(rng)  # each epoch has its own


@pytest.mark.parametrize("episodes", [None, np.array([0, 1, 2, 2, 0])])
def test_minibatches_keep_the_batch_and_its_dtype(episodes):
    batch = make_batch(5, weight=np.full(5, 0.2, dtype="float32"), episodes=episodes)
    copies = {name: np.copy(column) for name, column in vars(batch).items()}
    for _, part in batch.minibatches(2, np.random.default_rng(2)):
        assert part.weight.dtype == np.float32
        part.weight[:] = part.advantages[:] = 0.0
    for name, copy in copies.items():
        np.testing.assert_array_equal(getattr(batch, name), copy)


def episode_batch(lengths, seed=0):
    """Rows of several episodes in order of time, as `flatten` leaves them."""
    valid = np.arange(max(lengths))[:, None] < np.array(lengths)
    n = int(valid.sum())
    return make_batch(n, seed, observations=np.arange(n), episodes=np.nonzero(valid)[1])


@pytest.mark.parametrize("lengths", [None, [3, 1, 4, 2, 5]], ids=["rows", "episodes"])
def test_weights_of_a_part_estimate_the_sum_over_the_batch(lengths):
    """weight * (units / units in the part), where a unit is a row or an episode."""
    batch = episode_batch(lengths) if lengths else make_batch(7)
    parts = list(batch.minibatches(2, np.random.default_rng(1)))
    assert len(parts) > 1
    for rows, part in parts:
        units = 5 / len(set(part.episodes)) if lengths else 7 / len(rows)
        np.testing.assert_allclose(part.weight, batch.weight[rows] * units, rtol=1e-14)
        assert part.weight.dtype == np.float64


def test_the_rows_of_an_episode_stay_in_order_of_time():
    batch = episode_batch([20] * 10)
    for rows, part in batch.minibatches(5, np.random.default_rng(0)):
        for episode in set(part.episodes):
            assert (np.diff(rows[part.episodes == episode]) > 0).all()


def test_a_single_part_of_episodes_is_the_batch_as_it_is():
    batch = episode_batch([2, 3])
    ((rows, part),) = batch.minibatches(2, np.random.default_rng(0))
    assert part is batch
    np.testing.assert_array_equal(rows, np.arange(5))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normalized_advantages_have_mean_zero_and_deviation_one(dtype):
    advantages = (100 + 5 * np.random.default_rng(3).normal(size=500)).astype(dtype)
    normalized = make_batch(500, advantages=advantages).with_normalized_advantages().advantages
    assert normalized.dtype == dtype
    exact = advantages.astype(np.float64)
    np.testing.assert_allclose(normalized, (exact - exact.mean()) / exact.std(), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("constant", [0.0, 1.0, 0.1, -3.3, 1000.1])
@pytest.mark.parametrize("n", [1, 3, 1000])
def test_constant_advantages_normalise_to_zero(dtype, constant, n):
    """Also where their computed mean is rounded, so that it is not one of them."""
    batch = make_batch(n, advantages=np.full(n, constant, dtype=dtype))
    normalized = batch.with_normalized_advantages().advantages
    assert normalized.shape == (n,)
    assert normalized.dtype == dtype
    np.testing.assert_array_equal(normalized, 0.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_deviation_of_eight_roundings_counts_as_none_and_half_a_rounding_more_does_not(dtype):
    """The deviation of 1 and 1 - 2d is d."""
    eps = np.finfo(dtype).eps
    for roundings, truth in ((8, 0.0), (8.5, 1.0)):
        advantages = np.array([1, 1 - 2 * roundings * eps], dtype=dtype)
        normalized = make_batch(2, advantages=advantages).with_normalized_advantages().advantages
        np.testing.assert_allclose(normalized, [truth, -truth], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e30])
def test_the_scale_of_advantages_does_not_matter(dtype, scale):
    """Nothing with a unit is added to the deviation; squares may leave the range of float32."""
    advantages = (scale * np.array([1.0, -1.0])).astype(dtype)
    normalized = make_batch(2, advantages=advantages).with_normalized_advantages().advantages
    assert normalized.dtype == dtype
    np.testing.assert_allclose(normalized, [1.0, -1.0], rtol=1e-6)


LENGTHS = [3, 1, 4]  # of three episodes, which begin at time 0


def batch_of_episodes(per, discount, dtype="float64"):
    time = np.arange(4)[:, None]
    rollout = make_rollout(time < np.array(LENGTHS))
    rollout = replace(rollout, time=np.broadcast_to(time, (4, 3)))
    signal = np.zeros((4, 3))
    return flatten(rollout, signal, signal, per=per, state_discount=discount, dtype=dtype)


@pytest.mark.parametrize("per", ["transition", "episode"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_without_a_state_discount_means_use_the_weights_themselves(per, dtype):
    batch = batch_of_episodes(per, 1.0, dtype)
    assert batch.mean_weight is batch.weight


@pytest.mark.parametrize(("per", "total"), [("transition", 1.0), ("episode", 8 / 3)])
def test_a_state_discount_does_not_change_the_sum_of_the_weights_of_means(per, total):
    batch = batch_of_episodes(per, 0.5)
    assert batch.weight.sum() < 0.7 * total  # the negative control: the losses' weights
    np.testing.assert_allclose(batch.mean_weight.sum(), total, rtol=1e-14)
    np.testing.assert_allclose(
        batch.mean_weight / batch.mean_weight[0], batch.weight / batch.weight[0], rtol=1e-14
    )


def test_weights_of_a_mean_sum_to_one_whatever_the_sum_of_the_weights():
    batch = replace(make_batch(3), weight=np.array([1, 2, 5]))
    np.testing.assert_allclose(batch.mean_weight, [1 / 8, 2 / 8, 5 / 8], rtol=1e-15)
    assert replace(batch, weight=np.zeros(3)).mean_weight.tolist() == [0, 0, 0]


def test_minibatches_of_whole_episodes_have_means_per_episode():
    batch = batch_of_episodes("episode", 0.5)
    for _, part in batch.minibatches(1, np.random.default_rng(0)):
        np.testing.assert_allclose(part.mean_weight.sum(), len(part), rtol=1e-14)


@pytest.mark.parametrize(
    "changed",
    [
        *({name: np.zeros(4)} for name in ("log_probs", "values", "advantages", "returns")),
        {"weight": np.ones((5, 1))},
        {"observations": np.zeros((4, 2))},
        {"actions": np.zeros(6, dtype=int)},
        {"advantages": np.zeros((5, 1))},
        {"episodes": np.zeros(4, dtype=int)},
    ],
    ids=lambda changed: "".join(changed),
)
def test_a_batch_states_the_shapes_that_do_not_fit(changed):
    batch = make_batch(5, actions=np.zeros((5, 2)))
    with pytest.raises(ValueError, match=r"one entry per transition, \(N,\)"):
        replace(batch, **changed)


PER_STEP = ("observations", "actions", "values", "valid", "time", "rewards")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *((name, r"must have .*shape \(T, E\)") for name in PER_STEP),
        ("episode_returns", r"episode_returns must have shape \(0,\)"),
        ("group", r"group must have shape \(2,\), got \(3,\)"),
    ],
)
def test_a_rollout_names_the_field_whose_shape_does_not_fit(name, message):
    rollout = make_rollout(np.ones((3, 2), dtype=bool))
    replace(rollout, actions=np.zeros((3, 2, 4)), group=np.zeros(2))
    with pytest.raises(ValueError, match=message):
        replace(rollout, **{name: np.zeros(3)})
