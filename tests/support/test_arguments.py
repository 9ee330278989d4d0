"""An object of the wrong kind is answered in one line that names the argument."""

import inspect
import pickle
import re
from types import SimpleNamespace
from typing import Any, get_type_hints

import gymnasium as gym
import numpy as np
import pytest
from helpers import chain_mdp, make_rollout, table_policy

import minirl
from minirl import checks, exact, rlhf
from minirl.exact import lqr, sequences, tabular
from minirl.rlhf.kl import next_token_kl
from minirl.rlhf.preferences import Pairs
from minirl.rlhf.reward_model import RewardModel
from minirl.rlhf.sft import FineTuned

TASK = rlhf.arithmetic()
EXCEPTIONS = minirl.NonFiniteError, minirl.PolicyFileError, minirl.TrainingStopped
ARRAY = np.zeros((2, 2))
NUMBERS = np.array([0, 1])
POLICY = table_policy(chain_mdp(), np.random.default_rng(0))
PAIRS = Pairs(NUMBERS, NUMBERS, NUMBERS + 1, 0)
TUNED = FineTuned(POLICY, 0.0, 1.0, 1.0, 0.0, 1, 1)
FEATURES = rlhf.bag_of_words(TASK)
MODEL = RewardModel(FEATURES, np.zeros(FEATURES.size), np.zeros(len(TASK.prompts)))
PREFERENCES = rlhf.Preferences(NUMBERS, NUMBERS, NUMBERS + 1, NUMBERS)
MOMENTS = minirl.RunningMoments(3, np.zeros(2), np.ones(2))
CRITIC_OF_BOX = minirl.make_critic(gym.spaces.Box(-1, 1, (4,)), np.random.default_rng(0))
RESULT = minirl.Result(POLICY, CRITIC_OF_BOX, minirl.History(), {})
RNG, NOTHING = np.random.default_rng(0), SimpleNamespace(parameters=None)
BATCH, ROLLOUT = minirl.Batch(*[np.zeros(3)] * 7), make_rollout((2, 2))
ENVS = minirl.make_vector_env("minirl/Chain-v0", 2)


class Other:
    pass


def public_callables():
    """Name and function of everything public that has parameters."""
    modules = (minirl, rlhf, exact, lqr, sequences, tabular, checks)
    for module in modules:
        names = getattr(module, "__all__", None) or [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
        ]
        for name in names:
            value = getattr(module, name)
            if getattr(value, "_is_protocol", False) or value in EXCEPTIONS:
                continue
            if inspect.isclass(value):
                for part, method in vars(value).items():
                    method = getattr(method, "__func__", method)
                    public = not part.startswith("_") or part in ("__call__", "__init__")
                    if public and inspect.isfunction(method):
                        yield f"{module.__name__}.{name}.{part}", method
            elif inspect.isfunction(inspect.unwrap(value)):
                yield f"{module.__name__}.{name}", value


def cases():
    for name, function in public_callables():
        hints = get_type_hints(function)
        for parameter in inspect.signature(function).parameters.values():
            variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if hints.get(parameter.name, Any) is not Any and not variadic:
                yield pytest.param(function, parameter.name, id=f"{name}({parameter.name})")


@pytest.mark.parametrize(("function", "name"), list(cases()))
def test_every_public_function_checks_every_argument(function, name):
    """Before anything else, so that the others may be missing."""
    assert hasattr(function, "__wrapped__"), "its module must end with check_arguments(__name__)"
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got an Other$") as caught:
        function(**{name: Other()})
    assert "\n" not in str(caught.value)


# A call, and below it the answer: the whole message, or, before "...", its beginning.
MISTAKES = """
rlhf.Objective(TASK, TUNED, TASK.utilities, 0.3)
    reference must be a Policy, got a FineTuned; did you mean .policy?
minirl.evaluate('minirl/Chain-v0', RESULT)
    policy must be a Policy, got a Result; did you mean .policy?
rlhf.fit_reward_model(FEATURES, PAIRS)
    preferences must be a Preferences, got a Pairs; label the pairs: Annotator().hard(pairs,
    utilities, rng)
rlhf.Objective(TASK, POLICY, MODEL, 0.3)
    rewards must be an array of numbers, got a RewardModel; did you mean .rewards()?
rlhf.Annotator().soft(PAIRS, TASK)
    utilities must be an array of numbers, got a TokenTask; did you mean .utilities?
minirl.train('CartPole-v1', minirl.PPO, total_steps=1)
    algorithm must be a string, a Preset or an object with init, update, got the class PPO; did you
    mean PPO()?
minirl.Settings(advantages=minirl.GAE)
    advantages must be an object with discount, __call__, got the class GAE; did you mean GAE()?
minirl.train('CartPole-v1', 'ppo', total_steps=1, settings={'num_envs': 2})
    settings must be a Settings, got a dict; did you mean Settings(**settings)?
minirl.train('CartPole-v1', 'ppo', total_steps=1, settings=minirl.Settings)
    settings must be a Settings, got the class Settings; did you mean Settings()?
minirl.train(gym.make('CartPole-v1'), 'ppo', total_steps=1)
    env must be a Gymnasium id or a function num_envs -> VectorEnv, got a TimeLimit; did you mean
    'CartPole-v1'?
minirl.compare('CartPole-v1', ['ppo'], total_steps=1, seeds=2.0)
    seeds must be a whole number or a list, got the float 2.0; did you mean 2?
rlhf.sample_pairs(POLICY, TASK, 3, 0)
    task must be a TokenTask, got a Policy; did you exchange task and policy?
rlhf.sample_pairs(TASK, POLICY, 3, 0)
    rng must be a numpy.random.Generator, got the int 0; did you mean numpy.random.default_rng(0)?
minirl.MLP((4, '64', 2))
    every width in sizes must be a whole number of at least 1, got '64'
minirl.Policy(minirl.Table, minirl.Categorical, ARRAY)
    network must be an object with dtype, size, init, forward, vjp, jvp, got the class Table; give
    an object: Table(...)
minirl.Policy(minirl.Table(2, 2), minirl.MLP, ARRAY)
    distribution must be the class Categorical or the class DiagonalGaussian, got the class MLP
minirl.PPO().init(NOTHING)
    policy must be a Policy, got a SimpleNamespace...
minirl.compare('CartPole-v1', ['ppo'], total_steps=1, seeds=1, out=0.5)
    out must be a path or a string, got the float 0.5...
POLICY.act(np.array(['a']))
    observations must be an array of numbers, got an array of <U1...
minirl.train('CartPole-v1', 'ppo', total_steps=1, measure=minirl.PPO)
    measure must be a function, got the class PPO...
minirl.make_vector_env(minirl.GAE, 2)
    env must be a Gymnasium id or a function num_envs -> VectorEnv, got the class GAE...
minirl.conjugate_gradient(5, np.ones(2), iterations=1)
    product must be a function, got the int 5...
minirl.DiagonalGaussian(ARRAY).sample(np.random.Generator)
    rng must be a numpy.random.Generator, got the class Generator; give an object: Gen...
minirl.Categorical(np.zeros(2))
    eta must have shape (N, A), A at least 1...
minirl.Categorical(np.zeros((2, 0)))
    eta must have shape (N, A), A at least 1...
minirl.DiagonalGaussian(np.zeros(2))
    eta must have shape (N, 2k), got (2,)...
minirl.DiagonalGaussian(np.zeros((2, 3)))
    eta must have shape (N, 2k), got (2, 3)...
minirl.Categorical(ARRAY).fisher_product(ARRAY[..., None])
    d_eta must have shape (2, 2), got (2, 2, 1)...
minirl.DiagonalGaussian(ARRAY).fisher_product(ARRAY[..., None])
    d_eta must have shape (2, 2), got (2, 2, 1)...
MOMENTS.normalize(np.ones((5, 2, 1)))
    samples must have shape (N, 2), got (5, 2, 1)...
MOMENTS.normalize(np.array(0.5))
    samples must have shape (N, 2), got ()...
MOMENTS.update(np.ones(5))
    samples must have shape (N, 2), got (5,)...
MOMENTS.update(np.array([[1e+300, 0.0]]))
    samples, or their squares, must consist of finite numbers, got inf...
minirl.RunningMoments(3, np.zeros(2), np.array([np.nan, 1.0]))
    variance must consist of finite numbers, got nan...
MOMENTS.rounding([])
    dtype must be a NumPy dtype of numbers, got a list...
minirl.MLP((4, 2)).forward(np.zeros(10), np.zeros((4, 2)))
    observations of this network must have shape (N, 4), got (4, 2)...
CRITIC_OF_BOX.values(np.zeros(4))
    observations of this network must have shape (N, 4), got (4,)...
PREFERENCES.rows(np.array([0.0]))
    selection must be a slice, whole numbers...
PREFERENCES.rows([])
    selection must be a slice, whole numbers...
PREFERENCES.rows(np.array([[0]]))
    selection must be a slice, whole numbers...
TASK.prompt(-1)
    prompt text -1 is unknown; the prompts are What is 2x2?...
rlhf.exact_match('What is 7x7?', ['A:'], False)
    prompt must be one of the arithmetic task's, What is 2x2?...
rlhf.stack_exchange_score(np.array([3, 0]), np.array([[True], [False]]))
    accepted must be one truth value, or one per number of upvotes with shape (2,), got...
rlhf.TokenGenerationVectorEnv(2, TASK).reset(seed=-1)
    seed must be a whole number of at least 0, got -1...
gym.make('minirl/Chain-v0').reset(seed='1')
    seed must be a whole number of at least 0, got '1'...
minirl.train('CartPole-v1', 'ppo', total_steps=1, measure=lambda policy: None)
    the result of measure must be a Mapping, got None...
TASK.child(np.zeros(2, int), np.zeros(3, int))
    shapes must fit together, got nodes (2,), words (3,)...
TASK.child([], np.zeros(2, int))
    shapes must fit together, got nodes (0,), words (2,)...
TASK.prompt_indices((index for index in (0, 1)))
    prompts must be whole numbers or texts (B,), got a generator...
TASK.prompt_indices(np.array([None, 'x']))
    prompts must be whole numbers or texts (B,), got an array of object...
minirl.train('CartPole-v1', 'ppo', total_steps=1, settings=minirl)
    settings must be a Settings, got a module...
rlhf.align(TASK, POLICY, ARRAY, 'ppo', sentences=10 ** 12)
    sentences must be at most 100,000,000,000...
minirl.compare('CartPole-v1', {'a': 1}, total_steps=1, seeds=1)
    algorithms['a'] must be an object with init, update, got the int 1...
minirl.compare('CartPole-v1', ['ppo'], total_steps=1, seeds=[0, None])
    every seed of seeds must be a whole number of at least 0, got None...
sequences.reward_kl_frontier(np.log(np.full((1, 1, 2), 0.5)), ARRAY, ARRAY)
    betas must be a list of numbers, at least one, got shape (2, 2)...
tabular.surrogate(chain_mdp(), np.full((5, 2), 0.5), np.ones((1, 2)))
    new must have shape (5, 2), got (1, 2)...
tabular.surrogate(chain_mdp(), np.ones((5, 2)), np.full((5, 2), 0.5))
    old must be probabilities that sum to 1...
tabular.policy_gradient(chain_mdp(), np.ones((1, 2)))
    logits must have shape (5, 2), got (1, 2)...
sequences.fisher_product(np.log(np.full((1, 1, 2), 0.5)), [[[0.0, np.inf]]])
    vector must consist of finite numbers, got inf...
sequences.expected_reward(np.log(np.full((1, 2), 0.5)), [[0.0, np.nan]])
    rewards must be finite numbers, got nan...
minirl.conjugate_gradient(lambda vector: None, np.ones(2), iterations=1)
    product of a vector must have shape (2,), got ()...
minirl.ReturnScaling().init(-1)
    num_envs must be a whole number of at least 1, got -1...
list(BATCH.minibatches(0, RNG))
    size must be a whole number...
list(BATCH.minibatches(0.5, RNG))
    size must be a whole number...
list(BATCH.minibatches('text', RNG))
    size must be a whole number...
minirl.flatten(ROLLOUT, ARRAY, np.zeros((2, 3)))
    returns must have shape (2, 2), got (2, 3)
minirl.flatten(ROLLOUT, np.zeros((2, 3)), ARRAY)
    advantages must have shape (2, 2), got (2, 3)
minirl.flatten(ROLLOUT, ARRAY, ARRAY + np.nan)
    returns must consist of finite numbers, got nan
minirl.flatten(ROLLOUT, ARRAY + np.nan, ARRAY)
    advantages must consist of finite numbers, got nan
minirl.flatten(ROLLOUT, ARRAY, ARRAY, state_discount=np.nan)
    state_discount must lie in [0, 1], got nan
minirl.collect(ENVS, POLICY, None, minirl.reset(ENVS, seed=0), RNG, steps=0)
    steps must be a whole number of at least 1, got 0
minirl.train(POLICY, 'ppo', total_steps=9)
    env must be a Gymnasium id or a function num_envs -> VectorEnv, got a Policy...
minirl.evaluate(POLICY, 'CartPole-v1')
    env must be a Gymnasium id or a function num_envs -> VectorEnv, got a Policy...
minirl.make_vector_env(POLICY, 2)
    env must be a Gymnasium id or a function num_envs -> VectorEnv, got a Policy...
minirl.preset(POLICY, 'ppo')
    env must be a Gymnasium id or a function num_envs -> VectorEnv, got a Policy...
minirl.train('CartPole-v1', 'ppo', total_steps=9, measure=POLICY)
    measure must be a function, got a Policy...
"""
CASES = [
    [" ".join(text.split()) for text in case]
    for case in re.findall(r"^((?:\S.*\n)+)((?: +.*\n)+)", MISTAKES, re.MULTILINE)
]


@pytest.mark.parametrize(("call", "answer"), CASES)
def test_a_mistake_is_answered_in_one_line_with_the_argument_and_the_way_out(call, answer):
    pattern = f"^{re.escape(answer.removesuffix('...'))}{'' if answer.endswith('...') else '$'}"
    with pytest.raises(ValueError, match=pattern) as caught:
        eval(call)
    assert "\n" not in str(caught.value)


def test_lists_are_taken_for_arrays_and_tuples():
    plain, wrapped = minirl.Table(2, 2), [1, 0]
    assert minirl.MLP([4, 8, 2]) == minirl.MLP((4, 8, 2))
    assert minirl.Settings(hidden_sizes=[8]).hidden_sizes == (8,)
    policy = minirl.Policy(plain, minirl.Categorical, [0.0, 1.0, 2.0, 3.0])
    # also where the arguments are looked at only after an error
    np.testing.assert_array_equal(policy.act(wrapped), [1, 1])
    np.testing.assert_array_equal(
        plain.vjp(wrapped, [[1.0, 2.0], [3.0, 4.0]]), [3.0, 4.0, 1.0, 2.0]
    )
    np.testing.assert_array_equal(minirl.Categorical([[0.0, 1.0]]).mode(), [1])
    # and objects that are numbers
    numbers = ARRAY.astype(object)
    np.testing.assert_array_equal(tabular.softmax_policy(numbers), tabular.softmax_policy(ARRAY))


def test_a_number_out_of_range_is_left_to_the_function():
    with pytest.raises(ValueError, match=r"^num_envs must be .* at least 1, got 2\.5$"):
        minirl.Settings(num_envs=2.5)
    with pytest.raises(ValueError, match=r"^step must be a number, got the str 'small'$"):
        checks.finite_difference(np.sum, ARRAY, ARRAY, "small")


def test_an_object_with_the_methods_that_a_function_calls_is_enough():
    class Doubling:
        def forward(self, theta, x):
            return 2 * theta * x, x

        def jvp(self, cache, dtheta):
            return 2 * dtheta * cache

    error = checks.check_jvp(Doubling(), np.ones(3), np.ones(3), np.random.default_rng(0))
    assert error < 1e-8


def test_an_error_of_the_function_itself_stays_what_it_is():
    def product(vector):
        return vector.no_such_attribute

    with pytest.raises(AttributeError, match="no_such_attribute"):
        minirl.conjugate_gradient(product, np.ones(2), iterations=1)


def test_checked_functions_are_pickled_by_name():
    assert pickle.loads(pickle.dumps(minirl.train)) is minirl.train


TEXT, OBJECTS = np.array([["1"]]), np.array([[object()]])


@pytest.mark.parametrize("array", [TEXT, OBJECTS])
@pytest.mark.parametrize("warmed_up", [False, True])
def test_arrays_of_text_or_objects_are_no_arrays_of_numbers(array, warmed_up):
    """Also after arrays of numbers: what is right is not the type but the dtype."""
    for function in (tabular.softmax_policy, rlhf.k3, minirl.Categorical):
        if warmed_up:
            function(ARRAY)
        with pytest.raises(
            ValueError, match=rf"must be an array of numbers, got an array of {array.dtype}$"
        ):
            function(array)


def test_an_explanation_keeps_the_error_it_explains():
    with pytest.raises(ValueError, match=r"^critic must be a Critic") as caught:
        minirl.CriticFit().init(NOTHING)
    assert "theta must be" in str(caught.value.__cause__)


@pytest.mark.parametrize("error", [ValueError("too steep"), TypeError("no"), KeyError("door")])
def test_an_error_of_a_users_code_is_never_explained_by_an_argument(error):
    """The object is no Policy, but it serves; what it raises is its own affair."""

    class Failing:
        def forward(self, observations):
            raise error

        __call__ = forward

    with pytest.raises(type(error)) as caught:
        next_token_kl(Failing(), Failing(), NUMBERS)
    assert caught.value is error


def test_a_class_is_a_function_where_its_objects_are_wanted():
    rng = np.random.default_rng(0)
    assert checks.check_fisher_product(minirl.Categorical, ARRAY, rng) < 1e-8
    with pytest.raises(ValueError, match="^distribution must be a function, got the class Other$"):
        checks.check_fisher_product(Other, ARRAY, rng)
