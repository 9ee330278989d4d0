import numpy as np
import pytest

from minirl.settings import Settings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        # out of range
        ("num_envs", 0),
        ("rollout_steps", -1),
        ("hidden_sizes", (64, 0)),
        ("min_log_std", 0.5),  # above initial_log_std
        ("dtype", "float16"),
        ("group_size", 0),
        ("averaging", "mean"),
        ("sampling_lag", -1),
        # of the wrong kind
        ("num_envs", True),
        ("num_envs", 8.0),  # NumPy takes no float as a length
        ("whole_episodes", 1),
        ("normalize_observations", 1),
        ("discount_states", None),
        ("group_size", 2.0),
        ("mixed_groups", 1),
        ("sampling_lag", 1.0),
        # not finite
        *[
            (field, value)
            for field in ("num_envs", "rollout_steps", "initial_log_std", "min_log_std")
            for value in (np.nan, np.inf, -np.inf)
        ],
    ],
)
def test_a_bad_value_is_refused_and_the_message_names_the_field(field, value):
    with pytest.raises(ValueError, match=field):
        Settings(**{field: value})


def test_groups_must_divide_the_environments_and_require_whole_episodes():
    with pytest.raises(ValueError, match="group_size must divide num_envs, 8, got 3"):
        Settings(num_envs=8, whole_episodes=True, group_size=3)
    with pytest.raises(ValueError, match="group_size 2 requires whole_episodes=True"):
        Settings(num_envs=8, group_size=2)
    assert Settings(num_envs=8, whole_episodes=True, group_size=8).group_size == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"averaging": "response"}, 'averaging "response" requires whole_episodes=True'),
        (
            {"averaging": "group", "whole_episodes": True},
            "averaging 'group' requires a group_size of at least 2, got 1",
        ),
        ({"mixed_groups": True}, "mixed_groups True requires a group_size of at least 2, got 1"),
    ],
)
def test_averages_and_mixed_groups_need_episodes_and_groups(options, message):
    with pytest.raises(ValueError, match=message):
        Settings(**options)
    whole = {"whole_episodes": True, "group_size": 4}
    Settings(**{**options, **whole})


def test_a_rollout_must_fit_into_memory():
    with pytest.raises(ValueError, match="num_envs times rollout_steps must be at most 1"):
        Settings(num_envs=1001, rollout_steps=100_000)
    Settings(num_envs=1000, rollout_steps=100_000)
    Settings(num_envs=1001, rollout_steps=100_000, whole_episodes=True)  # they end earlier
