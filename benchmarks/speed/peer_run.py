"""One run of one library on one task of `peers.py`, which starts a separate process per run.

    python benchmarks/speed/peer_run.py ppo-cartpole minirl 0    (task, library, seed; --steps)

Prints one line of JSON. The top of this file imports the standard library only, because the import
of a library is timed and its memory is measured.
"""

import argparse
import importlib
import importlib.metadata
import json
import resource
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

WINDOW = 100  # episodes in a mean return


@dataclass(frozen=True, kw_only=True)
class PPOSettings:
    """The hyperparameters of PPO, the same for every library; Adam's epsilon is 1e-5."""

    num_envs: int
    rollout_steps: int
    epochs: int
    minibatch_size: int
    learning_rate: float  # falls linearly to 0 over the run
    discount: float = 0.99
    lam: float = 0.95
    clip: float = 0.2
    clip_falls: bool = False  # linearly to 0, as the learning rate
    entropy: float = 0.0
    gradient_norm: float = 0.5
    normalize: bool = False  # observations and rewards


@dataclass(frozen=True, kw_only=True)
class TRPOSettings:
    """The same for TRPO; the critic's Adam has each library's epsilon, 1e-8 or 1e-5."""

    num_envs: int = 2
    rollout_steps: int = 512
    discount: float = 0.99
    lam: float = 0.98
    max_kl: float = 0.01
    damping: float = 1e-3
    cg_iterations: int = 15
    shrink: float = 0.8
    critic_learning_rate: float = 1e-3
    critic_epochs: int = 20
    critic_minibatch_size: int = 128
    normalize: bool = False


@dataclass(frozen=True)
class Task:
    """One comparison of other libraries with "minirl" and "minirl-sync".

    `kind` is the quantity that is compared: CPU seconds per environment step, either in total
    ("steps") or "apart from simulation", or CPU seconds "to threshold". For seconds per step, time
    before the end of the first update is not counted, because PyTorch loads modules and JAX and
    Numba compile then.
    """

    title: str
    kind: str
    environment: str
    total_steps: int
    libraries: tuple[str, ...]
    settings: PPOSettings | TRPOSettings
    threshold: float | None = None
    other_settings: dict[str, Any] = field(default_factory=dict)  # by library
    fewer_steps: dict[str, int] = field(default_factory=dict)  # of slow libraries

    def settings_of(self, library: str) -> Any:
        return self.other_settings.get(library.removesuffix("-sync"), self.settings)

    @property
    def simulates_apart(self) -> bool:
        return self.kind == "apart from simulation"


PPO_COMMON = PPOSettings(
    num_envs=8, rollout_steps=128, epochs=4, minibatch_size=256, learning_rate=2.5e-4, entropy=0.01
)
RL_ZOO = PPOSettings(
    num_envs=8,
    rollout_steps=32,
    epochs=20,
    minibatch_size=256,
    learning_rate=1e-3,
    discount=0.98,
    lam=0.8,
    clip_falls=True,
)
PPO_CONTINUOUS = PPOSettings(
    num_envs=1, rollout_steps=2048, epochs=10, minibatch_size=64, learning_rate=3e-4, normalize=True
)
PRESET = "preset"  # minirl's own defaults for the environment

MINIRL = ("minirl", "minirl-sync")
TASKS = {
    "ppo-cartpole": Task(
        "PPO on CartPole-v1, 200,000 steps (tianshou: 40,960)",
        "steps",
        "CartPole-v1",
        200_000,
        (*MINIRL, "stable-baselines3", "sbx", "tianshou"),
        PPO_COMMON,
        475.0,
        fewer_steps={"tianshou": 40_960},
    ),
    "ppo-zoo": Task(
        "PPO on CartPole-v1 to a mean return of 475, RL-Zoo settings",
        "to threshold",
        "CartPole-v1",
        100_000,
        (*MINIRL, "stable-baselines3", "sbx"),
        RL_ZOO,
        475.0,
    ),
    "trpo-cartpole": Task(
        "TRPO on CartPole-v1, 100,000 steps, the same settings",
        "steps",
        "CartPole-v1",
        100_000,
        ("minirl", "minirl-sync", "sb3-contrib"),
        TRPOSettings(),
        475.0,
    ),
    "trpo-recommended": Task(
        "TRPO on CartPole-v1 to a mean return of 475, each library's recommended settings",
        "to threshold",
        "CartPole-v1",
        100_000,
        ("minirl", "minirl-sync", "sb3-contrib"),
        TRPOSettings(critic_minibatch_size=512),
        475.0,
        {"minirl": PRESET},
    ),
    **{
        f"ppo-{name.lower()}": Task(
            f"PPO on {name}-v5, 10,240 steps, training apart from simulation",
            "apart from simulation",
            f"{name}-v5",
            10_240,
            ("minirl", "stable-baselines3"),
            PPO_CONTINUOUS,
        )
        for name in ("HalfCheetah", "Hopper")
    },
}


@dataclass
class Run:
    """The result of a library's run; episodes are in the order of their ends, in environment steps.

    `start_seconds` are the CPU seconds before the clock was started, `steps` the environment steps
    since then. minirl's clock starts at once, before its networks are made.
    """

    steps: int
    start_seconds: float | None
    cpu_seconds: float
    wall_seconds: float
    episode_ends: list[int]
    episode_returns: list[float]
    simulation_seconds: float | None = None


def clock() -> tuple[float, float]:
    """CPU seconds of this process, all threads, and wall seconds."""
    return time.process_time(), time.perf_counter()


def since(began: tuple[float, float], ended: tuple[float, float] | None = None) -> list[float]:
    """CPU and wall seconds between two readings of the clock, or until now."""
    return [end - start for start, end in zip(began, ended or clock(), strict=True)]


def peak_memory_mb() -> float:
    """The largest memory of this process.

    On Linux it is read from /proc: getrusage's maximum survives exec, so it may be the parent's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def environment_maker(task: Task, simulation: list[float]) -> Callable[[], Any]:
    """A function that makes one environment.

    Where simulation is subtracted, it adds the CPU seconds of steps and resets to `simulation[0]`.
    """
    import gymnasium as gym

    class Timed(gym.Wrapper):
        def step(self, action: Any) -> Any:
            return self.timed(self.env.step, action)

        def reset(self, **options: Any) -> Any:
            return self.timed(self.env.reset, **options)

        def timed(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
            began = time.process_time()
            outcome = call(*arguments, **options)
            simulation[0] += time.process_time() - began
            return outcome

    if task.simulates_apart:
        return lambda: Timed(gym.make(task.environment))
    return partial(gym.make, task.environment)


def minirl_choices(task: Task) -> tuple[Any, Any]:
    """The algorithm and the settings around it."""
    import minirl

    chosen = task.settings_of("minirl")
    if chosen == PRESET:
        preset = minirl.preset(task.environment, "trpo")
        return preset.algorithm, preset.settings
    common = minirl.Settings(
        num_envs=chosen.num_envs,
        rollout_steps=chosen.rollout_steps,
        advantages=minirl.GAE(chosen.discount, chosen.lam),
        normalize_observations=chosen.normalize,
        reward_transform=minirl.ReturnScaling(chosen.discount) if chosen.normalize else None,
    )
    if isinstance(chosen, TRPOSettings):
        trpo = minirl.TRPO(
            max_kl=chosen.max_kl,
            damping=chosen.damping,
            cg_iterations=chosen.cg_iterations,
            line_search_shrink=chosen.shrink,
            normalize_advantages=True,
        )
        fit = minirl.CriticFit(
            learning_rate=chosen.critic_learning_rate,
            epochs=chosen.critic_epochs,
            minibatch_size=chosen.critic_minibatch_size,
        )
        return trpo, replace(common, critic_fit=fit)
    shared = {
        "learning_rate": minirl.LinearSchedule(chosen.learning_rate),
        "epochs": chosen.epochs,
        "minibatch_size": chosen.minibatch_size,
        "max_gradient_norm": chosen.gradient_norm,
        "optimizer": minirl.Adam(epsilon=1e-5),
    }
    clip = minirl.LinearSchedule(chosen.clip) if chosen.clip_falls else chosen.clip
    ppo = minirl.PPO(
        objective=minirl.Clipped(clip),
        normalize_advantages=True,
        entropy_coefficient=chosen.entropy,
        **shared,
    )
    return ppo, replace(common, critic_fit=minirl.CriticFit(**shared))


def run_minirl(task: Task, library: str, seed: int) -> Run:
    """minirl with `SyncVectorEnv` ("minirl-sync") or with Gymnasium's own choice ("minirl")."""
    import gymnasium as gym

    import minirl

    simulation = [0.0]
    make = environment_maker(task, simulation)
    chosen_by_gymnasium = library == "minirl" and not task.simulates_apart
    algorithm, settings = minirl_choices(task)
    rollouts_ended = []

    def note_time(policy: Any) -> dict[str, float]:
        rollouts_ended.append(clock())
        return {}

    began = clock()
    history = minirl.train(
        task.environment
        if chosen_by_gymnasium
        else lambda num_envs: gym.vector.SyncVectorEnv([make] * num_envs),
        algorithm,
        total_steps=task.total_steps,
        seed=seed,
        settings=settings,
        measure=note_time,
    ).history
    seconds = since(began)
    steps, episodes = history.environment_steps, len(history.episode_ends)
    reached = history.steps_to(task.threshold) if task.kind == "to threshold" else None
    if reached is not None:
        # As if training had stopped after the rollout in which the mean reached the threshold.
        last = next(i for i, row in enumerate(history.rows) if row["environment_steps"] >= reached)
        seconds = since(began, rollouts_ended[last])
        steps, episodes = reached, int((history.episode_ends <= reached).sum())
    return Run(
        steps,
        None,
        *seconds,
        history.episode_ends[:episodes].tolist(),
        history.episode_returns[:episodes].tolist(),
        simulation[0] if task.simulates_apart else None,
    )


def stable_baselines_model(task: Task, library: str, seed: int, envs: Any) -> Any:
    """PPO of Stable-Baselines3 or of sbx, its JAX version; TRPO of sb3-contrib."""
    chosen = task.settings_of(library)
    common = {
        "policy": "MlpPolicy",
        "env": envs,
        "seed": seed,
        "device": "cpu",
        "n_steps": chosen.rollout_steps,
        "gamma": chosen.discount,
        "gae_lambda": chosen.lam,
    }
    if isinstance(chosen, TRPOSettings):
        import sb3_contrib

        return sb3_contrib.TRPO(
            **common,
            learning_rate=chosen.critic_learning_rate,
            batch_size=chosen.critic_minibatch_size,
            n_critic_updates=chosen.critic_epochs,
            cg_max_steps=chosen.cg_iterations,
            cg_damping=chosen.damping,
            target_kl=chosen.max_kl,
            line_search_shrinking_factor=chosen.shrink,
        )
    if library == "sbx":
        from sbx import PPO
    else:
        from stable_baselines3 import PPO

    return PPO(
        **common,
        batch_size=chosen.minibatch_size,
        n_epochs=chosen.epochs,
        learning_rate=lambda remaining: chosen.learning_rate * remaining,
        clip_range=(lambda remaining: chosen.clip * remaining)
        if chosen.clip_falls
        else chosen.clip,
        ent_coef=chosen.entropy,
        max_grad_norm=chosen.gradient_norm,
    )


def run_stable_baselines(task: Task, library: str, seed: int) -> Run:
    """Stable-Baselines3, sb3-contrib or sbx in their `DummyVecEnv`; no evaluation, no logs."""
    import numpy as np
    import torch
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    torch.set_num_threads(1)
    chosen = task.settings_of(library)
    simulation = [0.0]
    make = environment_maker(task, simulation)
    monitors = [Monitor(make()) for _ in range(chosen.num_envs)]
    envs = DummyVecEnv([lambda monitor=monitor: monitor for monitor in monitors])
    if chosen.normalize:
        envs = VecNormalize(envs, gamma=chosen.discount)

    to_threshold = task.kind == "to threshold"

    class Watch(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.recent: deque[float] = deque(maxlen=WINDOW)
            self.rollouts = 0

        def _on_rollout_start(self) -> None:
            self.rollouts += 1
            if self.rollouts == (1 if to_threshold else 2):
                self.began, self.steps_before = clock(), self.num_timesteps
                simulation[0] = 0.0

        def _on_step(self) -> bool:
            if not to_threshold or not self.locals["dones"].any():
                return True
            infos = self.locals["infos"]
            self.recent.extend(info["episode"]["r"] for info in infos if "episode" in info)
            # A Python bool: sbx tests whether the answer `is False`, which NumPy's bool is not.
            return bool(len(self.recent) < WINDOW or np.mean(self.recent) < task.threshold)

    built, watch = clock(), Watch()
    model = stable_baselines_model(task, library, seed, envs)
    model.learn(task.total_steps, watch)
    seconds = since(watch.began)
    # All environments step together, so an episode ends at its row times their number.
    episodes = []
    for monitor in monitors:
        ends = chosen.num_envs * np.cumsum(monitor.get_episode_lengths())
        episodes += zip(ends.tolist(), map(float, monitor.get_episode_rewards()), strict=True)
    episodes.sort()
    return Run(
        model.num_timesteps - watch.steps_before,
        since(built, watch.began)[0],
        *seconds,
        [end for end, _ in episodes],
        [score for _, score in episodes],
        simulation[0] if task.simulates_apart else None,
    )


def run_tianshou(task: Task, library: str, seed: int) -> Run:
    """tianshou's procedural interface, without test episodes; ends are known up to a rollout."""
    import numpy as np
    import torch
    from tianshou.algorithm import PPO
    from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory, LRSchedulerFactoryLinear
    from tianshou.data import Collector, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv
    from tianshou.trainer import OnPolicyTrainerParams
    from tianshou.utils.net.common import Net
    from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - tianshou shuffles minibatches with it
    chosen = task.settings_of(library)
    make = environment_maker(task, [0.0])
    batch = chosen.num_envs * chosen.rollout_steps
    ends: list[int] = []
    returns: list[float] = []

    class Remembering(Collector):
        def collect(self, *arguments: Any, **named: Any) -> Any:
            stats = super().collect(*arguments, **named)
            ends.extend([self.collect_step] * len(stats.returns))
            returns.extend(stats.returns.tolist())
            return stats

    began = clock()
    envs = DummyVectorEnv([make] * chosen.num_envs)
    envs.seed(seed)
    observations, actions = envs.observation_space[0], envs.action_space[0]
    shape = {"state_shape": observations.shape, "hidden_sizes": (64, 64)}
    network = partial(Net, **shape, activation=torch.nn.Tanh)
    optimizer = AdamOptimizerFactory(lr=chosen.learning_rate, eps=1e-5)
    schedule = LRSchedulerFactoryLinear(1, task.total_steps, batch)
    algorithm = PPO(
        policy=DiscreteActorPolicy(
            actor=DiscreteActor(
                preprocess_net=network(), action_shape=actions.n, softmax_output=False
            ),
            dist_fn=lambda logits: torch.distributions.Categorical(logits=logits),
            action_space=actions,
            observation_space=observations,
        ),
        critic=DiscreteCritic(preprocess_net=network()),
        optim=optimizer.with_lr_scheduler_factory(schedule),
        eps_clip=chosen.clip,
        ent_coef=chosen.entropy,
        max_grad_norm=chosen.gradient_norm,
        gae_lambda=chosen.lam,
        gamma=chosen.discount,
        max_batchsize=batch,
    )
    steps_began: list[tuple[Any, int]] = []
    collector = Remembering(algorithm, envs, VectorReplayBuffer(batch, chosen.num_envs))
    algorithm.run_training(
        OnPolicyTrainerParams(
            training_collector=collector,
            max_epochs=1,
            epoch_num_steps=task.total_steps,
            collection_step_num_env_steps=batch,
            batch_size=chosen.minibatch_size,
            update_step_num_repetitions=chosen.epochs,
            training_fn=lambda epoch, steps: steps_began.append((clock(), steps)),
            show_progress=False,
            verbose=False,
        )
    )
    after_first_update, steps_before = steps_began[1]
    return Run(
        collector.collect_step - steps_before,
        since(began, after_first_update)[0],
        *since(after_first_update),
        ends,
        returns,
    )


TIANSHOU = ("tianshou.algorithm", "tianshou.trainer", "tianshou.data", "tianshou.env")
# How a library runs, the modules that its user imports, the distributions whose versions are stored
LIBRARIES = {
    **dict.fromkeys(MINIRL, (run_minirl, ("minirl",), ("minirl-numpy", "numpy"))),
    "stable-baselines3": (
        run_stable_baselines,
        ("stable_baselines3",),
        ("stable-baselines3", "torch"),
    ),
    "sb3-contrib": (run_stable_baselines, ("sb3_contrib",), ("sb3-contrib", "torch")),
    "sbx": (run_stable_baselines, ("sbx",), ("sbx-rl", "jax")),
    "tianshou": (run_tianshou, TIANSHOU, ("tianshou", "torch")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("seed", type=int)
    parser.add_argument("--steps", type=int, help="environment steps, in place of the task's")
    arguments = parser.parse_args()
    task, library = TASKS[arguments.task], arguments.library
    settings = task.settings_of(library)
    task = replace(
        task, total_steps=arguments.steps or task.fewer_steps.get(library, task.total_steps)
    )
    if settings != PRESET:
        least = 2 * settings.num_envs * settings.rollout_steps
        if task.total_steps < least:
            parser.error(f"--steps must be {least} or more: the clock starts after one update")
    run, modules, distributions = LIBRARIES[library]
    began = clock()
    try:
        for module in modules:
            importlib.import_module(module)
        import_seconds = since(began)[0]
        import_memory_mb = peak_memory_mb()
        if task.simulates_apart:
            importlib.import_module("gymnasium.envs.mujoco")
    except Exception as error:  # whatever a broken installation raises
        print(json.dumps({"unavailable": f"{type(error).__name__}: {error}"}))
        return
    result = run(task, library, arguments.seed)
    versions = [f"{name} {importlib.metadata.version(name)}" for name in distributions]
    footprint = {
        "version": ", ".join(versions),
        "import_seconds": import_seconds,
        "import_memory_mb": import_memory_mb,
        "peak_memory_mb": peak_memory_mb(),
    }
    print(json.dumps({**footprint, **vars(result)}))


if __name__ == "__main__":
    main()
