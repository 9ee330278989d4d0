"""Checkpoints: everything that an interrupted training run needs in order to continue exactly.

A checkpoint file is a line with a SHA-256 digest of what follows, a line of JSON that describes the
run, and a pickle. **A pickle can execute any code when it is loaded: resume only from checkpoints
that you made yourself.** The digest detects damage, not forgery. To give a policy to others, use
`minirl.save_policy`.

The environments' state consists of the attributes of their Python objects. This works for the
environments of minirl and for Gymnasium's classic control, toy text and MuJoCo. Environments in
worker processes (`AsyncVectorEnv`) and those of Box2D cannot be stored; such a run continues from
freshly reset environments. Data that an environment, an algorithm or a `measure` keeps elsewhere,
for example in a global variable or a file, is not stored.
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
    """A file is not an undamaged checkpoint of the run that is to continue."""


@dataclass(eq=False)
class RunState:
    """Everything that changes while a policy is trained.

    Parameters
    ----------
    learner : Learner
        The states of algorithm, critic fit and reward transform.
    history : History
        Its last row contains the CPU seconds used so far.
    env_state : EnvState or None
        The environments' state for the next rollout; None before the first reset.
    action_rng, update_rng : Generator
        The random streams of actions and of minibatches.
    best_policy : Policy or None
        The policy of the best evaluation so far, whose mean return is `best_return`.
    collapsed : bool
        Whether the warning about a collapsed policy has been given.
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
    """When and where the state of a run is saved, and the file from which it is resumed.

    Parameters
    ----------
    path, every, resume
        `checkpoint`, `checkpoint_every` and `resume` of `minirl.train`.
    described : dict
        JSON-ready description of the run.
    policy : Policy or None
        The policy with which the run starts, if one was given.

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
        """The run that continues; `envs` gets the state of its environments."""
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
            f"checkpoint {str(checkpoint)!r} exists already; give resume={str(checkpoint)!r} to "
            "continue from it, or delete it to train again"
        )


def save_checkpoint(
    path: Path | str, run: RunState, envs: VectorEnv, described: dict[str, Any]
) -> None:
    """Write a checkpoint atomically, so that an interruption does not destroy the previous one.

    Parameters
    ----------
    envs : VectorEnv
        The environments. Their state is stored with the checkpoint if it can be pickled.
    described : dict
        JSON-ready description of the run, with which `load_checkpoint` compares its own.

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
        If the file is damaged or not a checkpoint, or if it belongs to another run. The message
        says how the two runs differ.
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
    """Number of environment steps of the run in a checkpoint.

    Raises
    ------
    CheckpointError
        If the file is damaged or not a checkpoint.
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
    # `env_fns` are often local functions, which cannot be pickled, and are not needed again.
    layers = [
        {name: value for name, value in vars(layer).items() if name not in ("env", "env_fns")}
        for layer in _layers(envs)
    ]
    buffer = io.BytesIO()
    try:
        _StatePickler(buffer).dump(layers)
    except Exception:  # each library raises its own errors
        return None
    return buffer.getvalue()


def restore_environments(
    envs: VectorEnv, environments: bytes | None, run: RunState, seed: int
) -> None:
    """Give new environments the state of those in the checkpoint.

    If this state could not be stored, they are reset with a seed made from the run's `seed` and the
    number of environment steps so far, and this number is appended to `run.resets`.
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
            "must be importable under the same names as when it was saved"
        ) from error


def _layers(envs: VectorEnv) -> list[VectorEnv]:
    """The wrappers of a vector environment, outermost first, and the environment itself."""
    layers = [envs]
    while isinstance(layers[-1], VectorWrapper):
        layers.append(layers[-1].env)
    return layers


class _StatePickler(pickle.Pickler):
    """Pickler that stores all attributes of `EzPickle` objects.

    By default, these objects store only the arguments of their constructors. MuJoCo's environments
    are such objects, so they would become new environments.
    """

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, EzPickle):
            return copyreg.__newobj__, (type(value),), vars(value), None, None, _set_attributes  # type: ignore[attr-defined]
        return NotImplemented


def _set_attributes(value: Any, attributes: dict[str, Any]) -> None:
    vars(value).update(attributes)
