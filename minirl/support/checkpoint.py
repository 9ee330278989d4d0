"""Checkpoints: everything an interrupted training run needs to go on as if nothing had happened.

A checkpoint file is a line with a SHA-256 digest of what follows, a line of JSON that describes the
run, and a pickle. **A pickle can execute any code when it is loaded: resume only from checkpoints
that you made yourself.** The digest shows damage, not forgery. Policies for others are `.npz` files
(`minirl.save_policy`).

The environments' state is the attributes of their Python objects, which covers everything that
comes with minirl, Gymnasium's CartPole, classic control, toy text and MuJoCo. Environments in
worker processes (`AsyncVectorEnv`) and Box2D's cannot be stored; such a run goes on from freshly
reset environments. What an environment, an algorithm or a `measure` keeps outside of its own state
(in a global variable, in a file) is not stored either.
"""

import copyreg
import hashlib
import io
import json
import math
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.utils import EzPickle
from gymnasium.vector import VectorEnv, VectorWrapper

from minirl.policy import Policy
from minirl.rollout import EnvState, reset
from minirl.support.history import History
from minirl.support.serialization import first_difference, source_hash, write_atomically
from minirl.support.validation import require_count

FORMAT = "minirl-checkpoint-1"


class CheckpointError(ValueError):
    """A file is not an undamaged checkpoint of the run that should go on."""


@dataclass(eq=False)
class RunState:
    """Everything that changes while a policy is trained.

    Parameters
    ----------
    learner : Learner
        The states of algorithm, critic fit and reward transform.
    history : History
        Its last row holds the CPU seconds used so far.
    env_state : EnvState or None
        The environments' state for the next rollout; None before the first reset.
    action_rng, update_rng : Generator
        The random streams of actions and of minibatches.
    best_policy : Policy or None
        The policy of the best evaluation so far, whose mean return is `best_return`.
    collapsed : bool
        Whether the warning of a collapsed policy has been given.
    resets : tuple of int
        Environment steps at which the run was resumed from freshly reset environments.
    """

    learner: Any
    history: History
    env_state: EnvState | None
    action_rng: np.random.Generator
    update_rng: np.random.Generator
    best_policy: Policy | None = None
    best_return: float = -math.inf
    collapsed: bool = False
    resets: tuple[int, ...] = ()


class Checkpoints:
    """When and where to save the state of a run, and from where to resume it.

    Parameters
    ----------
    path, every, resume
        `checkpoint`, `checkpoint_every` and `resume` of `minirl.train`.
    described : dict
        JSON-ready description of the run.
    policy : Policy or None
        The policy that the run starts from, if one was given.

    Raises
    ------
    ValueError
        If only one of `path` and `every` is given, or `path` exists and is not resumed from.
    """

    def __init__(
        self,
        path: Path | str | None,
        every: int | None,
        resume: Path | str | None,
        described: dict[str, Any],
        policy: Policy | None,
    ) -> None:
        _require_consistent(path, every, resume)
        self.path = path
        self.every = every
        self.resume = resume
        initial = policy and hashlib.sha256(policy.parameters.tobytes()).hexdigest()
        self.described = {**described, "initial_parameters": initial, "source": source_hash()}

    def save(self, run: RunState, envs: VectorEnv) -> None:
        """Save the run, if there is a path for checkpoints."""
        if self.path is not None:
            save_checkpoint(self.path, run, envs, self.described)

    def load(self, envs: VectorEnv, seed: int) -> RunState:
        """The run to go on with, whose environments are put where they were."""
        assert self.resume is not None
        run, environments = load_checkpoint(self.resume, self.described)
        restore_environments(envs, environments, run, seed)
        return run


def _require_consistent(
    checkpoint: Path | str | None, every: int | None, resume: Path | str | None
) -> None:
    if (checkpoint is None) != (every is None):
        raise ValueError(
            "checkpoint and checkpoint_every must be given together, got "
            f"{checkpoint!r} and {every!r}"
        )
    if checkpoint is None:
        return
    require_count("checkpoint_every", every)
    same = resume is not None and Path(resume).resolve() == Path(checkpoint).resolve()
    if Path(checkpoint).exists() and not same:
        raise ValueError(
            f"checkpoint {str(checkpoint)!r} exists already; give resume={str(checkpoint)!r} to go "
            "on from it, or delete it to train again"
        )


def save_checkpoint(
    path: Path | str, run: RunState, envs: VectorEnv, described: dict[str, Any]
) -> None:
    """Write a checkpoint atomically, so that the one before survives an interruption.

    Parameters
    ----------
    envs : VectorEnv
        Whose state is stored with the checkpoint, if it can be pickled.
    described : dict
        JSON-ready description of the run, which `load_checkpoint` compares.

    Raises
    ------
    ValueError
        If the file cannot be written, or a state of the learner cannot be pickled.
    """
    steps = run.history.environment_steps
    header = json.dumps({"environment_steps": steps, "run": described}).encode()
    try:
        pickled = pickle.dumps((run, environment_state(envs)))
    except Exception as error:  # pickling calls the classes of a user
        raise ValueError(
            f"training cannot be saved as a checkpoint: {error}; classes of algorithms, critic "
            "fits and reward transforms, and of their states, must be defined at the top level of "
            "a module"
        ) from error
    content = header + b"\n" + pickled
    digest = hashlib.sha256(content).hexdigest()
    try:
        write_atomically(path, lambda file: file.write(f"{FORMAT} {digest}\n".encode() + content))
    except OSError as error:
        raise ValueError(f"checkpoint {str(path)!r} can't be written: {error}") from error


def load_checkpoint(path: Path | str, described: dict[str, Any]) -> tuple[RunState, bytes | None]:
    """The state of the run that `described` describes, and that of its environments.

    Raises
    ------
    CheckpointError
        If the file is damaged or no checkpoint, or if it belongs to another run, saying how the
        two differ.
    """
    header, pickled = _read(path)
    difference = first_difference(header["run"], described)
    if difference:
        raise CheckpointError(
            f"checkpoint {str(path)!r} belongs to another run: {difference}; resume with the same "
            "arguments, or train its policy further as a new run (policy=...)"
        )
    run, environments = _unpickled(pickled)
    return run, environments


def checkpoint_steps(path: Path | str) -> int:
    """How many environment steps a checkpoint contains.

    Raises
    ------
    CheckpointError
        If the file is damaged or no checkpoint.
    """
    return int(_read(path)[0]["environment_steps"])


def _read(path: Path | str) -> tuple[dict[str, Any], bytes]:
    """The header and the pickle of an undamaged checkpoint file."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint {str(path)!r} can't be read: {error}") from error
    first, _, rest = content.partition(b"\n")
    if first != f"{FORMAT} {hashlib.sha256(rest).hexdigest()}".encode():
        raise CheckpointError(
            f"{str(path)!r} is damaged, or it is not a checkpoint of this version of minirl; "
            "delete it and train again"
        )
    header, _, pickled = rest.partition(b"\n")
    return json.loads(header), pickled


def environment_state(envs: VectorEnv) -> bytes | None:
    """The attributes of parallel environments, pickled; None if they cannot be pickled."""
    # Not the functions that made them, which are often local: `make_vector_env` makes new ones.
    layers = [
        {name: value for name, value in vars(layer).items() if name not in ("env", "env_fns")}
        for layer in _layers(envs)
    ]
    buffer = io.BytesIO()
    try:
        _StatePickler(buffer).dump(layers)
    except Exception:  # each library's objects refuse with errors of their own
        return None
    return buffer.getvalue()


def restore_environments(
    envs: VectorEnv, environments: bytes | None, run: RunState, seed: int
) -> None:
    """Put new environments where those of the checkpoint were.

    If their state could not be stored, they are reset with a seed made of the run's `seed` and of
    the environment steps so far, which are then listed in `run.resets`.
    """
    if environments is not None:
        for layer, state in zip(_layers(envs), _unpickled(environments), strict=True):
            vars(layer).update(state)
        return
    steps = run.history.environment_steps
    reset_seed = int(np.random.SeedSequence([seed, steps]).generate_state(1)[0])
    rows = run.env_state.rows if run.env_state else 0
    run.env_state = replace(reset(envs, seed=reset_seed), rows=rows)
    run.resets += (steps,)


def _unpickled(content: bytes) -> Any:
    try:
        return pickle.loads(content)
    except Exception as error:  # unpickling calls the classes of a user
        raise CheckpointError(
            f"the checkpoint can't be loaded here: {type(error).__name__}: {error}; its classes "
            "must be defined where they were when it was saved"
        ) from error


def _layers(envs: VectorEnv) -> list[VectorEnv]:
    """The wrappers of a vector environment, outermost first, and the environment itself."""
    layers = [envs]
    while isinstance(layers[-1], VectorWrapper):
        layers.append(layers[-1].env)
    return layers


class _StatePickler(pickle.Pickler):
    """Stores all attributes of `EzPickle` objects, which by themselves store how they were made.

    MuJoCo's environments are such objects: unpickled as usual, they would be new environments.
    """

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, EzPickle):
            return copyreg.__newobj__, (type(value),), vars(value), None, None, _set_attributes  # type: ignore[attr-defined]
        return NotImplemented


def _set_attributes(value: Any, attributes: dict[str, Any]) -> None:
    vars(value).update(attributes)
