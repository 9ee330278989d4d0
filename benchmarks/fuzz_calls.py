"""Calls of the public functions of minirl with one argument replaced; part of `fuzz.py`.

Arguments have the same names throughout minirl. One table of right values by name (`World`) is
therefore enough to call nearly everything. `Calls.uncovered` lists the functions that it cannot
call.
"""

import dataclasses
import inspect
import math
import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

import minirl
import minirl.exact
import minirl.rlhf
from minirl.distributions import Categorical
from minirl.envs.token_tasks import TokenTask
from minirl.exact import lqr, sequences, tabular
from minirl.rlhf import sft

ACCEPTED = (ValueError, OSError, RuntimeError)  # includes TrainingStopped and PolicyFileError
HUGE = 10**12
LONGEST_MESSAGE = 2_000

MODULES = (lqr, sequences, tabular)
# Names whose arguments do not come from a user, or are checked where minirl uses them.
EXCLUDED = {
    "minirl.Algorithm",  # a protocol
    "minirl.TrainingStopped",  # minirl raises or returns these
    "minirl.NonFiniteError",
    "minirl.PolicyFileError",
    "minirl.CheckpointError",
    "minirl.EnvironmentFailure",
    "minirl.Result",
    "minirl.Comparison",
    "minirl.Evaluation",
    "minirl.History",
    # minirl.PPO calls them with the arrays of its minibatch
    "minirl.Clipped.loss",
    "minirl.rlhf.ReferenceLoss.loss",
    "sequences.require_price",  # an argument is the name of another argument in messages
}
# Training checks the parameters for NaN when it makes them; they are not checked in every step.
NETWORKS = {"minirl.Policy", "minirl.Critic"}
# Functions that receive these records check them, so only the records' methods are called.
RECORDS = {"minirl.Rollout", "minirl.Batch", "minirl.rlhf.Corpus", "minirl.rlhf.Questions"}
# Formulas of inner loops, which do not check their arrays: the result for NaN is NaN.
FORMULAS = (
    "minirl.Categorical.",
    "minirl.DiagonalGaussian.",
    "minirl.RunningMoments.",
    "minirl.Critic.values",
    "minirl.Critic.with_parameters",
    "minirl.Policy.with_parameters",
    "minirl.WithLogStd.project",
    "minirl.AdaptiveKL.next_beta",
    "minirl.rlhf.AdaptiveReferenceBeta.next_beta",
    "minirl.rlhf.Objective.fraction_reached",
    "minirl.rlhf.k",
    "minirl.rlhf.TokenTask.child",
    "minirl.rlhf.TokenTask.observation",
    "minirl.rlhf.TokenTask.parent",
)
ELEMENTWISE = {  # of arrays of any shape
    *(f"minirl.rlhf.k{number}" for number in (1, 2, 3)),
    *(f"minirl.rlhf.TokenTask.{name}" for name in ("child", "parent", "observation")),
}
SETTINGS = minirl.Settings(num_envs=2, rollout_steps=8, hidden_sizes=(4,))


def small_task() -> TokenTask:
    """Two prompts, two words, answers of at most two words: 7 responses."""
    return TokenTask(
        prompts=("4", "6"),
        vocabulary=("a", "b", "<eos>"),
        max_words=2,
        utility=lambda prompt, words, cut: float(words.count("a")) - cut,
        demonstrations=lambda prompt: {"a": 0.5, "b": 0.25, "a b": 0.25},
    )


def started_environments() -> gym.vector.VectorEnv:
    """Two environments that have been reset."""
    envs = minirl.make_vector_env("CartPole-v1", 2)
    minirl.reset(envs, seed=0)
    return envs


class World:
    """A right value of every argument: by its name, or by function and name if one is not enough.

    Each call gets new values, because a call with a wrong value may change the others.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.policy = minirl.make_policy(
            gym.spaces.Box(-1, 1, (4,)), gym.spaces.Discrete(2), rng, hidden_sizes=(4,)
        )
        self.critic = minirl.make_critic(gym.spaces.Box(-1, 1, (4,)), rng, hidden_sizes=(4,))
        self.task = small_task()
        logits = rng.normal(size=(2, 3, 3))
        self.log_policy = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        logits = rng.normal(size=(2, 3, 3))
        self.log_reference = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        self.language_model = minirl.rlhf.full_prefix_policy(self.task, self.log_reference)
        self.response_log_probs = sequences.response_log_probs(self.log_policy)
        envs = minirl.make_vector_env("CartPole-v1", 2)
        state = minirl.reset(envs, seed=0)
        self.rollout, self.env_state = minirl.collect(
            envs, self.policy, self.critic, state, rng, steps=16
        )
        envs.close()
        self.advantages, self.returns = minirl.GAE()(self.rollout)
        self.batch = minirl.flatten(self.rollout, self.advantages, self.returns)
        self.mdp = tabular.FiniteMDP(
            transitions=np.full((3, 2, 3), 0.3),
            rewards=rng.normal(size=(3, 2)),
            start=np.ones(3) / 3,
            discount=0.9,
        )
        self.problem = {
            "A": np.eye(2) * 0.9,
            "B": np.eye(2)[:, :1] + 0.1,
            "Q": np.eye(2),
            "R": np.eye(1),
            "noise_covariance": np.eye(2) * 0.1,
            "start_covariance": np.eye(2),
        }
        self.table_critic = minirl.make_critic(gym.spaces.Discrete(3), rng)
        token_envs = minirl.rlhf.TokenGenerationVectorEnv(2, self.task)
        self.token_rollout = minirl.collect_episodes(
            token_envs, self.language_model, None, rng, max_steps=4, seed=0
        )
        self.pairs = minirl.rlhf.sample_pairs(self.task, self.language_model, 20, rng)
        self.preferences = minirl.rlhf.Annotator().soft(self.pairs, self.task.utilities)
        self.hard = minirl.rlhf.Annotator().hard(self.pairs, self.task.utilities, rng)
        self.questions = minirl.rlhf.sample_questions(self.task, self.language_model, 20, rng)

    def value(self, owner: str, name: str) -> Any:
        """A right value of the argument `name` of `owner`; KeyError if it is not known."""
        table = self._by_owner()
        while owner:
            if (owner, name) in table:
                return table[owner, name]()
            owner = owner.rpartition(".")[0]
        return self._by_name()[name]()

    def _by_owner(self) -> dict[tuple[str, str], Callable[[], Any]]:
        tabular_policy = np.full((3, 2), 0.5)
        labels = np.array([0.0, 1.0, 1.0, 0.25])
        states = {
            (f"minirl.{kind.__name__}", "state"): lambda kind=kind: kind().init(self.policy)
            for kind in (minirl.PolicyGradient, minirl.NaturalGradient, minirl.TRPO, minirl.PPO)
        }
        return {
            ("minirl.rlhf", "policy"): lambda: self.language_model,
            **states,
            ("minirl.CriticFit", "state"): lambda: minirl.CriticFit().init(self.critic),
            ("minirl.collect", "state"): lambda: self.env_state,
            ("minirl.rlhf.TokenTask.child", "words"): lambda: np.array([0, 1]),
            ("minirl.rlhf.TokenTask.observation", "prompts"): lambda: np.array([0, 1]),
            ("minirl.TableFit", "critic"): lambda: self.table_critic,
            ("minirl.TableFit", "state"): lambda: minirl.TableFit().init(self.table_critic),
            ("minirl.TableFit", "batch"): lambda: dataclasses.replace(
                self.batch, observations=np.zeros(len(self.batch), int)
            ),
            ("minirl.ReturnScaling", "state"): lambda: minirl.ReturnScaling().init(2),
            **{
                ("minirl.Rollout", field.name): lambda name=field.name: getattr(self.rollout, name)
                for field in dataclasses.fields(minirl.Rollout)
            },
            **{
                ("minirl.Batch", field.name): lambda name=field.name: getattr(self.batch, name)
                for field in dataclasses.fields(minirl.Batch)
            },
            ("minirl.Settings", "advantages"): lambda: minirl.GAE(),
            ("minirl.train", "progress"): lambda: False,
            ("minirl.compare", "progress"): lambda: False,
            ("minirl.rlhf.align", "progress"): lambda: False,
            ("minirl.compare", "env"): lambda: "minirl/Chain-v0",
            ("minirl.rlhf.probability_masses", "preferences"): lambda: self.hard,
            ("sft", "stream"): lambda: sft.token_stream(
                self.task,
                minirl.rlhf.sample_demonstrations(self.task, 50, np.random.default_rng(0)),
            ),
            ("minirl.rlhf.exact_match", "cut"): lambda: False,
            ("minirl.rlhf.ReferenceKL", "state"): lambda: minirl.rlhf.ReferenceKL(
                self.language_model
            ).init(2),
            ("minirl.rlhf.ReferenceKL", "rollout"): lambda: self.token_rollout,
            ("minirl.DiagonalGaussian", "eta"): lambda: np.array([[0.5, -0.1], [1.0, 0.2]]),
            ("minirl.DiagonalGaussian", "actions"): lambda: np.array([[0.5], [1.0]]),
            ("minirl.DiagonalGaussian", "d_eta"): lambda: np.array([[0.5, -0.1], [1.0, 0.2]]),
            ("minirl.DiagonalGaussian", "other"): lambda: minirl.DiagonalGaussian(
                np.array([[0.4, -0.2], [1.5, 0.1]])
            ),
            ("minirl.WithLogStd", "mean"): lambda: minirl.Linear(2, 1),
            ("minirl.WithLogStd", "actions"): lambda: 1,
            ("minirl.RunningMoments.rounding", "dtype"): lambda: "float64",
            ("minirl.RunningMoments", "count"): lambda: 3,
            ("minirl.RunningMoments", "mean"): lambda: np.zeros(4),
            ("minirl.Policy", "network"): lambda: self.policy.network,
            ("minirl.Policy", "parameters"): lambda: self.policy.parameters.copy(),
            ("minirl.Policy", "theta"): lambda: self.policy.parameters.copy(),
            ("minirl.Critic", "network"): lambda: self.critic.network,
            ("minirl.Critic", "parameters"): lambda: self.critic.parameters.copy(),
            ("minirl.Critic", "theta"): lambda: self.critic.parameters.copy(),
            ("minirl.PPO", "optimizer"): lambda: minirl.Adam(),
            ("minirl.LinearSchedule", "start"): lambda: 0.1,
            ("minirl.Features", "matrix"): lambda: np.eye(4),
            ("minirl.Features", "mlp"): lambda: minirl.MLP((4, 3, 2)),
            ("minirl.Features", "x"): lambda: np.array([0, 3]),
            ("minirl.rlhf.ReferenceLoss", "reference"): lambda: None,
            ("minirl.rlhf.network_policy", "hidden_sizes"): lambda: (4,),
            ("minirl.rlhf.keep_best", "rewards"): lambda: np.array([[0.0, 1.0], [1.0, 1.0]]),
            ("minirl.rlhf.keep_right", "rewards"): lambda: np.array([[0.0, 1.0], [1.0, 1.0]]),
            ("minirl.rlhf.soft_values", "objective"): lambda: minirl.rlhf.Objective(
                self.task, self.language_model, self.task.utilities, 0.3
            ),
            ("minirl.rlhf.PotentialShaping", "first"): lambda: None,
            ("minirl.rlhf.PotentialShaping", "state"): lambda: None,
            ("minirl.rlhf.PotentialShaping", "rollout"): lambda: self.token_rollout,
            ("minirl.rlhf.Annotator", "first"): lambda: np.array([1.0, 2.0]),
            ("minirl.rlhf.Annotator", "second"): lambda: np.array([0.0, 2.5]),
            ("minirl.rlhf.Annotator", "utilities"): lambda: self.task.utilities.copy(),
            ("minirl.rlhf.FreshPairs", "annotator"): lambda: minirl.rlhf.Annotator(),
            ("minirl.rlhf.FreshPairs", "utilities"): lambda: self.task.utilities.copy(),
            ("minirl.rlhf.length_biased", "utilities"): lambda: self.task.utilities.copy(),
            ("minirl.rlhf.length_biased", "per_token"): lambda: 0.5,
            ("minirl.rlhf.Preferences", "prompts"): lambda: np.array([0, 1, 1, 0]),
            ("minirl.rlhf.Preferences", "selection"): lambda: np.array([0, 1]),
            ("minirl.rlhf.Preferences", "labels"): lambda: labels.copy(),
            ("minirl.rlhf.Corpus", "prompts"): lambda: np.array([0, 1, 1, 0]),
            ("minirl.rlhf.Questions", "prompts"): lambda: np.array([0, 1]),
            ("minirl.rlhf.Questions", "responses"): lambda: np.array([[0, 1, 2], [3, 4, 5]]),
            ("minirl.rlhf.Questions", "upvotes"): lambda: np.array([[0, 1, 2], [3, 4, 5]]),
            ("minirl.rlhf.Questions", "accepted"): lambda: np.array([0, 2]),
            ("minirl.rlhf.TokenTask", "prompts"): lambda: ("4", "6"),
            ("minirl.rlhf.TokenTask", "response"): lambda: 2,
            ("minirl.rlhf.TokenTask", "demonstrations"): lambda: self.task.demonstrations,
            ("minirl.rlhf.TokenTask.paths", "prompts"): lambda: np.array([0, 1]),
            ("minirl.rlhf.TokenTask.paths", "responses"): lambda: np.array([0, 6]),
            ("minirl.rlhf.TokenTask.response", "text"): lambda: "a",
            ("minirl.rlhf.TokenTask.response", "cut"): lambda: False,
            ("minirl.rlhf.ReferenceKL", "policy"): lambda: self.language_model,
            ("minirl.rlhf.DPO", "measure"): lambda: None,
            ("minirl.rlhf.stack_exchange_score", "accepted"): lambda: np.array([True, False]),
            ("minirl.rlhf.exact_match", "words"): lambda: ["A:", "8"],
            ("minirl.rlhf.exact_match", "prompt"): lambda: "What is 2x4?",
            ("minirl.rlhf.arithmetic", "utility"): lambda: minirl.rlhf.exact_match,
            ("minirl.rlhf.align", "algorithm"): lambda: "policy-gradient",
            ("minirl.rlhf.align", "prompts"): lambda: [0, 1],
            ("minirl.rlhf.TokenGenerationVectorEnv", "prompts"): lambda: [0, 1],
            ("minirl.rlhf.operand_features", "task"): lambda: minirl.rlhf.addition(2),
            ("minirl.rlhf.align", "settings"): lambda: None,
            ("minirl.rlhf.align", "measure"): lambda: None,
            ("minirl.rlhf.fine_tune", "smoothing"): lambda: 0.05,
            ("minirl.evaluate", "policy"): lambda: self.policy,
            ("minirl.evaluate", "episodes"): lambda: 2,
            ("minirl.train", "policy"): lambda: self.policy,
            ("minirl.train", "measure"): lambda: None,
            ("minirl.train", "settings"): lambda: SETTINGS,
            ("minirl.train", "total_episodes"): lambda: None,
            ("minirl.compare", "seeds"): lambda: 1,
            ("minirl.compare", "executor"): lambda: None,
            ("minirl.compare", "workers"): lambda: 1,
            ("minirl.compare", "out"): lambda: "out",
            ("minirl.watch", "policy"): lambda: self.policy,
            ("minirl.watch", "path"): lambda: "agent.gif",
            ("minirl.save_policy", "policy"): lambda: self.policy,
            ("minirl.save_policy", "description"): lambda: {"env": "CartPole-v1"},
            ("tabular", "policy"): lambda: tabular_policy.copy(),
            ("tabular", "new"): lambda: tabular_policy.copy(),
            ("tabular", "old"): lambda: np.array([[0.4, 0.6], [0.5, 0.5], [0.1, 0.9]]),
            ("tabular", "logits"): lambda: np.zeros((3, 2)),
            ("tabular", "env"): lambda: gym.make("minirl/Chain-v0").unwrapped,
            ("tabular.gae_variance", "policy"): lambda: np.full((5, 2), 0.5),
            ("tabular.gae_variance", "values"): lambda: np.zeros(5),
            ("tabular", "values"): lambda: np.zeros(3),
            ("tabular.FiniteMDP", "rewards"): lambda: np.zeros((3, 2)),
            ("tabular.FiniteMDP", "start"): lambda: np.ones(3) / 3,
            ("tabular", "horizon"): lambda: 5,
            ("lqr", "horizon"): lambda: 5,
            ("lqr", "log_std"): lambda: np.array([-0.5]),
            ("sequences", "log_probs"): lambda: self.response_log_probs.copy(),
            ("sequences", "other"): lambda: sequences.response_log_probs(self.log_reference),
            ("sequences", "beta"): lambda: 0.5,
            ("sequences", "words"): lambda: 2,
            ("sequences", "coefficients"): lambda: np.ones((2, 7)),
            ("sequences.path_sums", "values"): lambda: np.ones((2, 3, 3)),
            ("sequences.tree_sums", "coefficients"): lambda: np.ones(7),
            ("sequences", "vector"): lambda: np.ones((2, 3, 3)),
        }

    def _by_name(self) -> dict[str, Callable[[], Any]]:
        shared = {
            "eta": lambda: np.array([[0.5, -0.5], [1.0, 0.0]]),
            "actions": lambda: np.array([0, 1]),
            "d_eta": lambda: np.array([[0.5, -0.5], [1.0, 0.0]]),
            "other": lambda: Categorical(np.zeros((2, 2))),
            "wrt": lambda: "self",
            "sizes": lambda: (4, 3, 2),
            "theta": lambda: np.zeros(0),
            "variance": lambda: np.ones(4),
            "samples": lambda: np.ones((5, 4)),
            "network": lambda: self.policy.network,
            "distribution": lambda: Categorical,
            "observation_statistics": lambda: None,
            "observations": lambda: np.zeros((2, 4), np.float32),
            "statistics": lambda: minirl.RunningMoments(3, np.zeros(4), np.ones(4)),
            "observation_space": lambda: gym.spaces.Box(-1, 1, (4,)),
            "action_space": lambda: gym.spaces.Discrete(2),
            "env": lambda: "CartPole-v1",
            "envs": started_environments,
            "num_envs": lambda: 2,
            "rng": lambda: np.random.default_rng(1),
            "seed": lambda: 1,
            "options": lambda: None,
            "nodes": lambda: np.array([0, 1]),
            "contexts": lambda: np.array([0, 1]),
            "policy": lambda: self.policy,
            "critic": lambda: self.critic,
            "steps": lambda: 4,
            "max_steps": lambda: 20,
            "group_size": lambda: 1,
            "rollout": lambda: self.rollout,
            "advantages": lambda: self.advantages.copy(),
            "returns": lambda: self.returns.copy(),
            "product": lambda: lambda vector: 2 * vector,
            "b": lambda: np.ones(3),
            "reason_to_reject": lambda: lambda fraction: "too long" if fraction > 0.5 else None,
            "shrink": lambda: 0.7,
            "tries": lambda: 5,
            "iterations": lambda: 5,
            "damping": lambda: 0.1,
            "algorithm": lambda: minirl.PPO(epochs=1),
            "algorithms": lambda: {"ppo": minirl.PPO(epochs=1)},
            "name": lambda: "ppo",
            "settings": lambda: SETTINGS,
            "total_steps": lambda: 16,
            "evaluation_episodes": lambda: 2,
            "path": lambda: "policy.npz",
            "batch": lambda: self.batch,
            "progress": lambda: 0.5,
            "size": lambda: 8,
            "selection": lambda: np.array([0, 1]),
            "value": lambda: 0.5,
            "states": lambda: 3,
            "inputs": lambda: 2,
            "outputs": lambda: 2,
            "start": lambda: np.ones(3) / 3,
            "task": lambda: self.task,
            "reference": lambda: self.language_model,
            "rewards": lambda: self.task.utilities.copy(),
            "beta": lambda: 0.3,
            "sentences": lambda: 8,
            "prompts": lambda: np.array([0, 1, 1, 0]),
            "responses": lambda: np.array([0, 1, 5, 6]),
            "first": lambda: np.array([0, 1, 5, 6]),
            "second": lambda: np.array([1, 2, 3, 4]),
            "labels": lambda: np.array([0.0, 1.0, 1.0, 0.25]),
            "predicted": lambda: np.array([0.1, 0.9, 0.4, 0.5]),
            "log_ratio": lambda: np.array([0.5, -0.5]),
            "log_probs": lambda: self.log_policy.copy(),
            "demonstrations": lambda: minirl.rlhf.sample_demonstrations(
                self.task, 50, np.random.default_rng(0)
            ),
            "features": lambda: minirl.rlhf.one_hot(self.task),
            "preferences": lambda: self.preferences,
            "pairs": lambda: self.pairs,
            "kept": lambda: minirl.rlhf.Corpus(np.array([0, 1]), np.array([1, 5])),
            "select": lambda: minirl.rlhf.keep_best,
            "fit": lambda: minirl.rlhf.fit_table,
            "rounds": lambda: 1,
            "groups": lambda: 3,
            "potential": lambda: np.ones((2, 3)),
            "questions": lambda: self.questions,
            "count": lambda: 20,
            "n": lambda: 3,
            "upvotes": lambda: np.array([3, 0]),
            "by_prompt": lambda: ("a",),
            "vocabulary": lambda: ("a", "b", "<eos>"),
            "max_words": lambda: 2,
            "utility": lambda: self.task.utility,
            "text": lambda: "4",
            "mdp": lambda: self.mdp,
            "transitions": lambda: np.full((3, 2, 3), 0.3),
            "discount": lambda: 0.9,
            "lam": lambda: 0.9,
            "problem": lambda: minirl.exact.LQRProblem(**self.problem, discount=0.9),
            "gain": lambda: np.full((1, 2), -0.3),
            "log_policy": lambda: self.log_policy.copy(),
            "log_reference": lambda: self.log_reference.copy(),
            "betas": lambda: [0.1, 1.0],
            "y": lambda: np.arange(6.0) + 0.5,
            "confidence": lambda: 0.9,
            "epsilon": lambda: 0.2,
            "ridge": lambda: 0.1,
            "smoothing": lambda: 0.05,
            "nats": lambda: 1.0,
            "block_size": lambda: 8,
            "kl": lambda: 0.02,
            "learning_rate": lambda: 0.1,
            "gradient": lambda: np.ones(3),
            "target": lambda: 0.5,
        }
        return {
            **{name: (lambda item=item: item.copy()) for name, item in self.problem.items()},
            **shared,
        }


def public_objects() -> Iterator[tuple[str, Any]]:
    """Names and objects of everything that the packages export, and of `MODULES`."""
    for package in (minirl, minirl.rlhf):
        for name in package.__all__:
            path = f"{package.__name__}.{name}"
            if callable(getattr(package, name)):
                yield path, getattr(package, name)
    for module in MODULES:
        short = module.__name__.rpartition(".")[2]
        for name, item in vars(module).items():
            if name.startswith("_") or getattr(item, "__module__", "") != module.__name__:
                continue
            if inspect.isfunction(item) or item in (tabular.FiniteMDP, lqr.LQRProblem):
                yield f"{short}.{name}", item


def methods_of(kind: type) -> Iterator[str]:
    """The public methods of a class, without those that only minirl's loop calls."""
    internal = {"layers", "forward", "vjp", "jvp", "step", "loss_and_gradient"}
    for name, item in vars(kind).items():
        if not name.startswith("_") and name not in internal and inspect.isfunction(item):
            yield name


class Calls:
    """Everything that can be called with right arguments."""

    def __init__(self) -> None:
        self.world = World()
        self.names: list[str] = []
        self.uncovered: dict[str, str] = {}
        self._makers: dict[str, Callable[[], Callable[..., Any]]] = {}
        self._right_results: dict[str, tuple[bool, Any]] = {}  # whether it has NaN, shapes
        for path, item in public_objects():
            if path in EXCLUDED:
                continue
            self._add(path, lambda item=item: item)
            if inspect.isclass(item) and path not in self.uncovered:
                for name in methods_of(item):
                    if f"{path}.{name}" in EXCLUDED:
                        continue
                    self._add(
                        f"{path}.{name}", lambda path=path, name=name: self._bound(path, name)
                    )

    def _add(self, path: str, make: Callable[[], Callable[..., Any]]) -> None:
        try:
            self._makers[path] = make
            function, arguments = self.right(path)
            with np.errstate(all="ignore"):
                result = function(**arguments) if arguments else None
            self._right_results[path] = holds_nan(result), shape_of(result)
        except KeyError as missing:
            self.uncovered[path] = f"no value of {missing}"
        except Exception as error:
            self.uncovered[path] = f"{type(error).__name__}: {error}"
        else:
            if arguments and path not in RECORDS:
                self.names.append(path)

    def _bound(self, path: str, name: str) -> Callable[..., Any]:
        kind, arguments = self.right(path)
        bound: Callable[..., Any] = getattr(kind(**arguments), name)
        return bound

    def right(self, path: str) -> tuple[Callable[..., Any], dict[str, Any]]:
        """The callable, and right arguments for it."""
        function = self._makers[path]()
        arguments = {}
        for name, parameter in inspect.signature(function).parameters.items():
            try:
                arguments[name] = self.world.value(path, name)
            except KeyError:
                if parameter.default is inspect.Parameter.empty:
                    raise KeyError(name) from None
                arguments[name] = parameter.default
        return function, arguments

    def attempt(self, rng: np.random.Generator) -> tuple[str, Callable[[], tuple[str, str]], bool]:
        """The text of a call with one argument replaced, how to try it, and whether it may be long.

        Trying it returns "accepted", "refused" or a kind that begins with "failure", and details.
        """
        path = self.names[rng.integers(len(self.names))]
        function, arguments = self.right(path)
        name = list(arguments)[rng.integers(len(arguments))]
        how, wrong = replacement(arguments, name, rng)
        arguments[name] = wrong
        run = partial(self._judge, path, function, arguments, how, is_huge(wrong))
        return f"{path}({name}={how})", run, is_huge(wrong)

    def _judge(
        self,
        path: str,
        function: Callable[..., Any],
        arguments: dict[str, Any],
        how: str,
        huge: bool,
    ) -> tuple[str, str]:
        """Kind and details of a call in which `how` describes the replaced argument."""
        with np.errstate(all="ignore"):
            try:
                result = function(**arguments)
                if inspect.isgenerator(result):
                    result = list(result)
            except ACCEPTED as error:
                return refusal(error, list(arguments)), str(error)
            except MemoryError as error:
                return ("refused" if huge else "failure: MemoryError"), str(error)
            except Exception as error:
                return f"failure: {type(error).__name__}", str(error)
        held_nan, shape = self._right_results[path]
        may_hold_nan = path in NETWORKS or path.startswith(FORMULAS)
        if holds_nan(result) and not held_nan and not may_hold_nan:
            return "failure: NaN", ""
        if how == "a column" and shape_of(result) != shape and path not in ELEMENTWISE:
            return "failure: shape", f"{shape} became {shape_of(result)}"
        return "accepted", ""


def refusal(error: Exception, names: list[str]) -> str:
    """The kind of an outcome: whether an error names the wrong argument in one line."""
    text = str(error)
    if isinstance(error, OSError):
        return "refused"
    if not text or "\n" in text.strip() or len(text) > LONGEST_MESSAGE:
        return "failure: message is not one line"
    words = text.replace("_", " ")
    if not any(name in text or name.replace("_", " ") in words for name in names):
        return "failure: message names no argument"
    return "refused"


def is_huge(value: Any) -> bool:
    """Whether a value would require too much work or memory."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value > 1e6
    if isinstance(value, tuple | list):
        return any(is_huge(item) for item in value)
    return False


def replacement(arguments: dict[str, Any], name: str, rng: np.random.Generator) -> tuple[str, Any]:
    """A wrong or nearly right value of the argument `name`: (description, value)."""
    right = arguments[name]
    choices: list[tuple[str, Any]] = [
        ("None", None),
        ("'text'", "text"),
        ("''", ""),
        ("True", True),
        ("nan", math.nan),
        ("inf", math.inf),
        ("-inf", -math.inf),
        ("-1", -1),
        ("0", 0),
        ("0.5", 0.5),
        ("2.0", 2.0),
        ("1e300", 1e300),
        (str(HUGE), HUGE),
        ("[]", []),
        ("{}", {}),
        ("()", ()),
        ("1j", 1j),
        ("b'x'", b"x"),
        ("object()", object()),
        ("lambda", lambda *given: None),
        ("int", int),
        ("an empty array", np.zeros(0)),
        ("a scalar array", np.array(0.5)),
        ("an array of objects", np.array([None, "x"], dtype=object)),
        ("an array of text", np.array(["a", "b"])),
        ("a dict", {"a": 1}),
        ("minirl.PPO", minirl.PPO),
        ("minirl.GAE", minirl.GAE),
        ("minirl.Settings", minirl.Settings),
        ("PPO()", minirl.PPO()),
        ("Settings()", minirl.Settings()),
        ("minirl", minirl),
        ("a generator", (item for item in [1])),
        ("its class", type(right)),
        ("in a list", [right]),
        ("in a tuple", (right,)),
    ]
    choices += [(f"the {other}", value) for other, value in arguments.items() if other != name]
    if isinstance(right, np.ndarray) and right.size:
        broken = right.astype(np.float64, copy=True) if right.dtype.kind in "biuf" else right.copy()
        choices += [
            ("a list", right.tolist()),
            ("a column", right[..., None]),
            ("a row", right[None]),
            ("without the last", right[:-1]),
            ("twice", np.concatenate([right, right])),
            ("as text", right.astype(str)),
            ("as objects", right.astype(object)),
            ("transposed", right.T),
            ("flattened", right.ravel()),
            ("as complex", right.astype(complex)),
        ]
        if broken.dtype.kind == "f":
            for how, bad in (("nan", np.nan), ("inf", np.inf), ("-inf", -np.inf), ("1e300", 1e300)):
                changed = broken.copy()
                changed.flat[rng.integers(changed.size)] = bad
                choices.append((f"with one {how}", changed))
            choices += [
                ("negated", -broken - 1),
                ("plus a half", broken + 0.5),
                ("times 1e6", broken * 1e6),
                ("as integers", np.round(broken).astype(int)),
                ("as float32", broken.astype(np.float32)),
            ]
    if dataclasses.is_dataclass(right) and not isinstance(right, type):
        for field in dataclasses.fields(right):
            choices.append((f"its .{field.name}", getattr(right, field.name)))
        choices.append(("its fields as a dict", {f.name: None for f in dataclasses.fields(right)}))
        choices.append(
            (
                "a namespace",
                types.SimpleNamespace(**{f.name: None for f in dataclasses.fields(right)}),
            )
        )
    if isinstance(right, tuple | list):
        choices += [("reversed", right[::-1]), ("without the last", right[:-1])]
    return choices[rng.integers(len(choices))]


def holds_nan(value: Any, depth: int = 0) -> bool:
    """Whether a result contains a NaN."""
    if depth > 4:
        return False
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fc" and bool(np.isnan(value).any())
    if isinstance(value, float | np.floating):
        return math.isnan(value)
    if isinstance(value, dict):
        return any(holds_nan(item, depth + 1) for item in value.values())
    if isinstance(value, tuple | list):
        return any(holds_nan(item, depth + 1) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return any(
            holds_nan(getattr(value, field.name), depth + 1) for field in dataclasses.fields(value)
        )
    return False


def shape_of(value: Any) -> Any:
    """The shapes of a result's arrays."""
    if isinstance(value, np.ndarray):
        return value.shape
    if isinstance(value, tuple):
        return tuple(shape_of(item) for item in value)
    return None
