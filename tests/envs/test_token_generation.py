"""TokenGeneration: the one-sentence example, both ends, and many sentences against single ones."""

import gymnasium
import numpy as np
import pytest
from cat import describe_the_cat
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from minirl import make_vector_env
from minirl.envs.arithmetic import arithmetic, exact_match, gold_utility
from minirl.envs.token_generation import TokenGeneration, TokenGenerationVectorEnv, checked_rewards

IDENTIFIER = "minirl/TokenGeneration-v0"
CAT = describe_the_cat()

# "What is 2x4?" -> "A: 8". The prompt is the third of four with 4,681 contexts each. The empty
# context is 0, "A:" (word 4) is 1 + 4, and "A: 8" (word 2) is 8 * 5 + 1 + 2.
START = 2 * 4_681
ENDED = 18_724
EMPTY_CONTEXTS = {0, 4_681, 2 * 4_681, 3 * 4_681}


def reset_until(env, observation):
    """Reset with one seed after another until the sentence begins with this observation."""
    for seed in range(100):
        if env.reset(seed=seed)[0] == observation:
            return
    raise AssertionError(f"{observation} is never drawn")


@pytest.mark.parametrize("kwargs", [{}, {"task": CAT}, {"task": CAT, "rewards": np.eye(2, 40)}])
def test_gymnasium_has_nothing_to_complain_about(kwargs):
    env = gymnasium.make(IDENTIFIER, **kwargs)
    assert env.spec.max_episode_steps is None
    check_env(env.unwrapped)  # a warning is an error here
    assert [type(env.reset()[0]), *map(type, env.step(0)[:4])] == [int, int, float, bool, bool]


def test_vectorised_by_its_own_class_with_autoreset_at_the_next_step():
    envs = gymnasium.make_vec(IDENTIFIER, num_envs=3, task=CAT)
    assert type(envs.unwrapped) is TokenGenerationVectorEnv
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert type(make_vector_env(IDENTIFIER, 3).unwrapped) is TokenGenerationVectorEnv
    assert envs.unwrapped.task.prompts == CAT.prompts
    assert envs.single_observation_space == gymnasium.spaces.Discrete(27)
    assert envs.single_action_space == gymnasium.spaces.Discrete(4)


@pytest.mark.parametrize(("utility", "earned"), [(gold_utility, 2.5), (exact_match, 1.0)])
def test_the_one_sentence_example(utility, earned):
    task = arithmetic(utility)
    env, envs = TokenGeneration(task), TokenGenerationVectorEnv(1, task)
    reset_until(env, START)
    reset_until(envs, START)
    for token, observation, reward, ends in [
        (4, START + 5, 0.0, False),
        (2, START + 43, 0.0, False),
        (8, ENDED, earned, True),
    ]:
        assert env.step(token) == (observation, reward, ends, False, {})
        assert envs.step(np.array([token])) == ([observation], [reward], [ends], [False], {})
    observation, *rest = envs.step(np.array([4]))  # the reset row: its token is ignored
    assert observation[0] in EMPTY_CONTEXTS
    assert rest == [[0.0], [False], [False], {}]


def test_every_response_can_be_written():
    env = TokenGeneration(CAT)
    prompts, responses = (index.ravel() for index in np.indices((2, 40)))
    for prompt, response, seen, tokens, valid in zip(
        prompts, responses, *CAT.paths(prompts, responses), strict=True
    ):
        reset_until(env, 13 * prompt)
        steps = [env.step(token) for token in tokens[valid]]
        earned = [0.0] * (len(steps) - 1) + [CAT.utilities[prompt, response]]
        assert [step[0] for step in steps] == [*seen[valid][1:], 26]
        assert [step[1] for step in steps] == earned
        assert [step[2] for step in steps] == [False] * (len(steps) - 1) + [True]


def test_many_sentences_against_single_ones():
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(2, 40))  # no two sentences earn the same
    envs = TokenGenerationVectorEnv(5, CAT, rewards)
    singles = [TokenGeneration(CAT, rewards) for _ in range(5)]
    observations, _ = envs.reset(seed=1)
    for single, observation in zip(singles, observations, strict=True):
        reset_until(single, observation)
    ended, ends = [False] * 5, 0
    for _ in range(80):
        actions = rng.integers(4, size=5)
        observations, *outcomes, _ = envs.step(actions)
        assert observations in envs.observation_space
        for e, row in enumerate(zip(observations, *outcomes, strict=True)):
            if ended[e]:
                assert row in [(0, 0.0, False, False), (13, 0.0, False, False)]
                reset_until(singles[e], row[0])
            else:
                assert row == singles[e].step(actions[e])[:4]
        ended = outcomes[1]
        ends += ended.sum()
    assert ends > 50


def test_group_size_repeats_each_prompt():
    envs = TokenGenerationVectorEnv(60)
    grouped, _ = envs.reset(seed=0, options={"group_size": 4})
    np.testing.assert_array_equal(grouped, np.repeat(grouped[::4], 4))
    assert set(grouped) == EMPTY_CONTEXTS
    plain, _ = envs.reset(seed=0)
    assert (plain[::4] != plain[1::4]).any()


@pytest.mark.parametrize("group_size", [7, 120, 0, -4])
def test_group_size_must_divide(group_size):
    message = f"group_size must divide the number of environments, 60, got {group_size}"
    with pytest.raises(ValueError, match=message):
        TokenGenerationVectorEnv(60, CAT).reset(options={"group_size": group_size})
    with pytest.raises(ValueError, match="environments, 1, got 2"):
        TokenGeneration(CAT).reset(options={"group_size": 2})


@pytest.mark.parametrize("make", [TokenGeneration, lambda: TokenGenerationVectorEnv(1)])
def test_a_seed_fixes_the_prompts_and_the_next_reset_goes_on(make):
    def prompts(env, seed):
        drawn = [env.reset(seed=seed)[0], *(env.reset()[0] for _ in range(30))]
        return np.ravel(drawn).tolist()

    env = make()
    first = prompts(env, 3)
    assert set(first) == EMPTY_CONTEXTS
    assert prompts(env, 3) == prompts(make(), 3) == first
    assert prompts(env, 4) != first


def test_prompts_are_uniform_at_resets_and_at_autoresets():
    envs = TokenGenerationVectorEnv(4_000)
    for_eos = np.full(4_000, 8)
    drawn = [envs.reset(seed=0)[0]]
    envs.step(for_eos)
    drawn.append(envs.step(for_eos)[0])
    for observations in drawn:
        counts = np.array([(observations == context).sum() for context in sorted(EMPTY_CONTEXTS)])
        assert counts.sum() == 4_000
        assert (abs(counts - 1_000) < 4 * np.sqrt(4_000 * 0.25 * 0.75)).all()
    assert (drawn[0] != drawn[1]).mean() == pytest.approx(0.75, abs=4 * np.sqrt(0.1875 / 4_000))


def test_returned_arrays_belong_to_the_caller():
    actions = np.random.default_rng(0).integers(4, size=(40, 6))
    kept, spoilt = TokenGenerationVectorEnv(6, CAT), TokenGenerationVectorEnv(6, CAT)
    returned = [kept.reset(seed=2)[0]]
    copies = [returned[0].copy()]
    spoilt.reset(seed=2)[0][:] = 1
    for action in actions:
        step = kept.step(action)[:4]
        returned += step
        copies += [array.copy() for array in step]
        for array, same in zip(spoilt.step(action)[:4], step, strict=True):
            np.testing.assert_array_equal(array, same)
            array[:] = 1
    for array, copy in zip(returned, copies, strict=True):  # no later step has written into them
        np.testing.assert_array_equal(array, copy)


def with_one(value, text, cut=False):
    rewards = np.zeros((2, 40))
    rewards[1, CAT.response(text, cut=cut)] = value
    return rewards


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        (np.zeros(40), r"rewards must have shape \(2, 40\), got \(40,\)"),
        (np.zeros((40, 2)), r"rewards must have shape \(2, 40\), got \(40, 2\)"),
        (with_one(np.nan, "soft dog"), "got nan for 'soft dog' to 'Describe the dog'"),
        (with_one(-np.inf, "soft dog"), "got -inf for 'soft dog' to 'Describe the dog'"),
        (with_one(np.inf, "soft soft cat", True), "got inf for 'soft soft cat ...' to 'Describe"),
    ],
)
def test_wrong_rewards_are_named(rewards, message):
    for function in (
        lambda: checked_rewards(CAT, rewards),
        lambda: TokenGeneration(CAT, rewards=rewards),
        lambda: TokenGenerationVectorEnv(3, CAT, rewards=rewards),
    ):
        with pytest.raises(ValueError, match=message):
            function()
    with pytest.raises(ValueError, match="num_envs must be a whole number of at least 1, got 0"):
        TokenGenerationVectorEnv(0)


@pytest.mark.parametrize(
    "actions",
    [np.array([0, 4]), np.array([-1, 0]), np.array([0]), np.zeros((2, 1), int), np.zeros(2)],
)
def test_actions_that_are_no_tokens_are_named(actions):
    envs = TokenGenerationVectorEnv(2, CAT)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="actions must be 2 tokens 0 .. 3, got array"):
        envs.step(actions)


def test_only_the_given_prompts_are_drawn():
    """By number or by text, at a reset, at an autoreset and in groups."""
    for prompts in ([1, 3], np.array([3, 1]), [arithmetic().prompts[i] for i in (1, 3)]):
        env = TokenGenerationVectorEnv(400, prompts=prompts)
        first, _ = env.reset(seed=0)
        assert set(first) == {4_681, 3 * 4_681}
        assert abs((first == 4_681).mean() - 0.5) < 0.1
        env.step(np.full(400, 8))  # EOS
        assert set(env.step(np.full(400, 8))[0]) == {4_681, 3 * 4_681}
        grouped, _ = env.reset(seed=1, options={"group_size": 4})
        assert (grouped.reshape(-1, 4) == grouped[::4, None]).all()
        assert set(grouped) == {4_681, 3 * 4_681}
    everything = TokenGenerationVectorEnv(400)
    assert set(everything.reset(seed=0)[0]) == EMPTY_CONTEXTS


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "prompts must be"),
        ([1, 1], r"prompts must be different and at least one, got \[1, 1\]"),
        ([4], "prompts must be whole numbers 0 .. 3, got 4"),
        (["What is 2x5?"], "prompt text 'What is 2x5.' is unknown"),
        ("What is 2x4?", "prompts must be a list or an array of numbers, got the str"),
    ],
)
def test_bad_prompts_are_named(prompts, message):
    with pytest.raises(ValueError, match=message):
        TokenGenerationVectorEnv(4, prompts=prompts)
