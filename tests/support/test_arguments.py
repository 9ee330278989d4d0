"""An object of the wrong kind is answered in one line that names the argument."""

import inspect
import pickle
import re
from typing import Any, get_type_hints

import gymnasium as gym
import numpy as np
import pytest
from helpers import chain_mdp, table_policy

import minirl
from minirl import checks, exact, rlhf
from minirl.exact import lqr, sequences, tabular
from minirl.rlhf.preferences import Pairs
from minirl.rlhf.reward_model import RewardModel
from minirl.rlhf.sft import FineTuned


def chain_critic():
    """A critic for the chain."""
    space = gym.make("minirl/Chain-v0").observation_space
    return minirl.make_critic(space, np.random.default_rng(0))


TASK = rlhf.arithmetic()
EXCEPTIONS = minirl.NonFiniteError, minirl.PolicyFileError, minirl.TrainingStopped
ARRAY = np.zeros((2, 2))
NUMBERS = np.array([0, 1])
POLICY = table_policy(chain_mdp(), np.random.default_rng(0))
PAIRS = Pairs(NUMBERS, NUMBERS, NUMBERS + 1, 0)
TUNED = FineTuned(POLICY, 0.0, 1.0, 1.0, 0.0, 1, 1)
FEATURES = rlhf.bag_of_words(TASK)
MODEL = RewardModel(FEATURES, np.zeros(FEATURES.size), np.zeros(len(TASK.prompts)))
RESULT = minirl.Result(POLICY, chain_critic(), minirl.History(), {})


class Other:
    """Nothing that anybody needs."""


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: rlhf.Objective(TASK, TUNED, TASK.utilities, 0.3),
            "reference must be a Policy, got a FineTuned; did you mean .policy?",
        ),
        (
            lambda: minirl.evaluate(RESULT, "minirl/Chain-v0"),
            "policy must be a Policy, got a Result; did you mean .policy?",
        ),
        (
            lambda: rlhf.fit_reward_model(FEATURES, PAIRS),
            "preferences must be a Preferences, got a Pairs; label the pairs: "
            "Annotator().hard(pairs, utilities, rng)",
        ),
        (
            lambda: rlhf.Objective(TASK, POLICY, MODEL, 0.3),
            "rewards must be an array of numbers, got a RewardModel; did you mean .rewards()?",
        ),
        (
            lambda: rlhf.Annotator().soft(PAIRS, TASK),
            "utilities must be an array of numbers, got a TokenTask; did you mean .utilities?",
        ),
        (
            lambda: minirl.train("CartPole-v1", minirl.PPO, total_steps=1),
            "algorithm must be a string or an object with init, update, got the class PPO; did you "
            "mean PPO()?",
        ),
        (
            lambda: minirl.Settings(advantages=minirl.GAE),
            "advantages must be an object with discount, __call__, got the class GAE; did you mean "
            "GAE()?",
        ),
        (
            lambda: minirl.train("CartPole-v1", "ppo", total_steps=1, settings={"num_envs": 2}),
            "settings must be a Settings, got a dict; did you mean Settings(**settings)?",
        ),
        (
            lambda: minirl.train("CartPole-v1", "ppo", total_steps=1, settings=minirl.Settings),
            "settings must be a Settings, got the class Settings; did you mean Settings()?",
        ),
        (
            lambda: minirl.train(gym.make("CartPole-v1"), "ppo", total_steps=1),
            "env must be a Gymnasium id or a function num_envs -> VectorEnv, got a TimeLimit; did "
            "you mean 'CartPole-v1'?",
        ),
        (
            lambda: minirl.compare(["ppo"], "CartPole-v1", total_steps=1, seeds=2.0),
            "seeds must be a whole number or a list, got the float 2.0; did you mean 2?",
        ),
        (
            lambda: rlhf.sample_pairs(TASK, POLICY, 3, 0),
            "policy must be a Policy, got a TokenTask; policy and task are in each other's place",
        ),
        (
            lambda: rlhf.sample_pairs(POLICY, TASK, 3, 0),
            "rng must be a numpy.random.Generator, got the int 0; did you mean "
            "numpy.random.default_rng(0)?",
        ),
        (
            lambda: minirl.MLP((4, "64", 2)),
            "every width in sizes must be a whole number of at least 1, got '64'",
        ),
        (
            lambda: minirl.Policy(minirl.Table, minirl.Categorical, ARRAY),
            "network must be an object with dtype, size, init, forward, vjp, jvp, got the class "
            "Table; give an object: Table(...)",
        ),
        (
            lambda: minirl.Policy(minirl.Table(2, 2), minirl.MLP, ARRAY),
            "distribution must be the class Categorical or the class DiagonalGaussian, got the "
            "class MLP",
        ),
    ],
)
def test_the_commonest_mistakes_are_answered_with_the_way_out(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


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
    eta = [[0.0, 1.0]]
    np.testing.assert_array_equal(minirl.Categorical(eta).mode(), [1])


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
