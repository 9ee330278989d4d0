"""The command line: python -m minirl {train, compare, rlhf, evaluate, watch}."""

import argparse
import contextlib
import math
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from minirl.algorithms import ALGORITHMS
from minirl.experiments.animation import watch
from minirl.experiments.compare import compare
from minirl.experiments.evaluation import evaluate
from minirl.experiments.overrides import with_overrides
from minirl.experiments.runs import claimed_folder, save_training, saved_description
from minirl.presets import Preset, preset
from minirl.support.checkpoint import checkpoint_steps
from minirl.support.history import WINDOW, ReturnReached
from minirl.support.interrupts import (
    exit_on_interrupt,
    exit_status,
    hold_interrupts,
    raise_interrupts,
)
from minirl.support.serialization import describe, load_policy
from minirl.support.streams import lasting_streams
from minirl.support.validation import require_count
from minirl.training import Result, TrainingStopped, require_trainable, train


def parser() -> argparse.ArgumentParser:
    """The arguments of all commands."""
    main = argparse.ArgumentParser(
        prog="python -m minirl", description="Train, compare, evaluate and watch policies."
    )
    shown = argparse.ArgumentDefaultsHelpFormatter
    commands = main.add_subparsers(dest="command", required=True)
    names = ", ".join(ALGORITHMS)
    set_help = (
        "a hyperparameter or setting, e.g. max_kl=0.02, num_envs=4, objective=FixedKL(1.0) or "
        "learning_rate=LinearSchedule(1e-3); may be repeated"
    )
    max_steps_help = (
        "number of steps after which an evaluation episode is cut; None: the environment's own "
        "time limit, or 1000 if it has none"
    )

    command = commands.add_parser("train", help="train one policy", formatter_class=shown)
    command.add_argument("env", help="Gymnasium id, e.g. CartPole-v1")
    command.add_argument("--algorithm", default="ppo", help=names)
    command.add_argument("--total-steps", type=int, default=100_000, help="environment steps")
    command.add_argument(
        "--num-envs", type=int, help="number of parallel environments; None: as in the preset"
    )
    command.add_argument("--seed", type=int, default=0, help="seed of all randomness")
    command.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=set_help)
    command.add_argument(
        "--stop-at",
        type=float,
        metavar="RETURN",
        help="stop as soon as the mean return of the last 100 episodes is at least RETURN",
    )
    command.add_argument(
        "--evaluate-every",
        type=int,
        metavar="STEPS",
        help="evaluate the policy greedily about every STEPS environment steps, and keep the best "
        "one as best_policy.npz",
    )
    command.add_argument(
        "--checkpoint-every",
        type=int,
        metavar="STEPS",
        help="save checkpoint.pkl about every STEPS environment steps",
    )
    command.add_argument(
        "--resume",
        action="store_true",
        help="continue from checkpoint.pkl in the folder, if it exists; a checkpoint can execute "
        "any code, so resume only from your own",
    )
    command.add_argument(
        "--out", required=True, help="folder for policy.npz, history.csv and curve.png"
    )

    command = commands.add_parser(
        "compare", help="compare algorithms over several seeds", formatter_class=shown
    )
    command.add_argument("env", help="Gymnasium id, e.g. CartPole-v1")
    command.add_argument(
        "--algorithms", nargs="+", default=["policy-gradient", "trpo", "ppo"], help=names
    )
    command.add_argument("--seeds", type=int, default=5, help="number of seeds")
    command.add_argument(
        "--total-steps", type=int, default=100_000, help="environment steps of each run"
    )
    command.add_argument("--max-steps", type=int, help=max_steps_help)
    command.add_argument("--workers", type=int, default=2, help="number of worker processes")
    command.add_argument(
        "--out", required=True, help="folder for curves.png, runs.csv and summary.json"
    )

    command = commands.add_parser(
        "rlhf",
        help="align a tiny language model and compare every stage with the exact optimum",
        formatter_class=shown,
    )
    command.add_argument(
        "--beta", type=float, default=0.3, help="coefficient of the KL, in reward per nat"
    )
    command.add_argument(
        "--reward",
        choices=["gold", "learned"],
        default="gold",
        help="reward that the methods learn from; all are evaluated by the gold reward",
    )
    command.add_argument(
        "--model",
        choices=["table", "mlp"],
        default="table",
        help="the language model: a bigram table, or a network of the features of a context",
    )
    command.add_argument(
        "--methods",
        nargs="+",
        default=["all"],
        help="policy-gradient, natural-gradient, trpo, ppo, rloo, grpo, dpo, ipo, best-of-n; all: "
        "these nine. Also the presets for verifiable rewards (grpo-paper, dr-grpo, dapo, gspo, "
        "...) and the other preference losses (simpo, kto, ...); an unknown name lists them",
    )
    command.add_argument("--labels", type=int, default=3_000, help="number of preference pairs")
    command.add_argument("--seeds", type=int, default=2, help="number of runs of each method")
    command.add_argument(
        "--seed",
        type=int,
        default=2,
        help="seed of all randomness; over-optimisation lowers PPO's gold reward with 5 of 8 "
        "seeds, including 2",
    )
    command.add_argument(
        "--out",
        required=True,
        help="folder for frontier.png, learning.png, overoptimisation.png, verifiable.png, "
        "samples.md and summary.json",
    )

    command = commands.add_parser(
        "evaluate", help="evaluate a saved policy on fresh episodes", formatter_class=shown
    )
    command.add_argument("policy", help="policy.npz of a training run")
    command.add_argument("--env", help="environment; None: that of the training run")
    command.add_argument("--episodes", type=int, default=100, help="number of episodes")
    command.add_argument("--seed", type=int, default=0, help="seed of all randomness")
    command.add_argument(
        "--sampled",
        action="store_true",
        help="sample actions, instead of taking the most probable ones",
    )
    command.add_argument("--max-steps", type=int, help=max_steps_help)

    command = commands.add_parser(
        "watch", help="save one episode of a saved policy as a GIF", formatter_class=shown
    )
    command.add_argument("policy", help="policy.npz of a training run")
    command.add_argument("--env", help="environment; None: that of the training run")
    command.add_argument("--seed", type=int, default=0, help="seed of all randomness")
    command.add_argument("--out", required=True, help="GIF file that is written, e.g. agent.gif")
    return main


def run_train(arguments: argparse.Namespace) -> None:
    """Train, save, and print the file names; a finished run is not repeated."""
    num_envs = [] if arguments.num_envs is None else [f"num_envs={arguments.num_envs}"]
    chosen = with_overrides(preset(arguments.env, arguments.algorithm), [*arguments.set, *num_envs])
    require_trainable(
        arguments.env, chosen.algorithm, arguments.total_steps, arguments.seed, chosen.settings
    )
    stop = None if arguments.stop_at is None else ReturnReached(arguments.stop_at)
    for name in ("evaluate_every", "checkpoint_every"):
        if getattr(arguments, name) is not None:
            require_count(name, getattr(arguments, name))
    identity = {
        "kind": "train",
        "env": arguments.env,
        "algorithm": describe(chosen.algorithm),
        "settings": describe(chosen.settings),
        "total_steps": arguments.total_steps,
        "seed": arguments.seed,
        "stop": describe(stop),
        "evaluate_every": arguments.evaluate_every,
    }
    with claimed_folder(arguments.out, identity) as folder:
        _train_in(folder, arguments, chosen, stop)


def _train_in(
    folder: Path, arguments: argparse.Namespace, chosen: Preset, stop: ReturnReached | None
) -> None:
    checkpoint = folder / "checkpoint.pkl"
    resumes = arguments.resume and checkpoint.exists()
    saved = saved_description(folder)
    # A checkpoint beside a finished policy means that the run was killed while it saved its files.
    if saved is not None and not saved.get("partial", False) and not resumes:
        print(
            f"{folder} already contains this run, finished after {saved['environment_steps']:,} "
            "environment steps; to train again, delete its policy.npz or choose another folder"
        )
        return
    if checkpoint.exists() and not arguments.resume:
        raise ValueError(
            f"{checkpoint} contains this run after {checkpoint_steps(checkpoint):,} environment "
            "steps; add --resume to continue from it, or delete it to train from the start"
        )
    try:
        result = train(
            arguments.env,
            chosen,
            total_steps=arguments.total_steps,
            seed=arguments.seed,
            stop=stop,
            evaluate_every=arguments.evaluate_every,
            checkpoint=None if arguments.checkpoint_every is None else checkpoint,
            checkpoint_every=arguments.checkpoint_every,
            resume=checkpoint if resumes else None,
            progress=True,
        )
    except TrainingStopped as stopped:
        if save_training(stopped.result, folder):
            stopped.add_note(f"the policy so far is saved in {folder}, marked as partial")
        else:
            stopped.add_note(f"{folder} keeps the policy of a longer training of this run")
        if checkpoint.exists():
            stopped.add_note(
                f"{checkpoint} is kept; the same command with --resume continues from it"
            )
        raise
    names = save_training(result, folder)
    # The second pattern is a checkpoint that a process was writing when it was killed.
    for unneeded in [checkpoint, *folder.glob(".checkpoint.pkl.*")]:
        unneeded.unlink(missing_ok=True)
    for line in _summary(result):
        print(line)
    print(f"{folder}/{', '.join(names)}")


def _summary(result: Result) -> list[str]:
    """The lines that are printed after a training run."""
    history, lines = result.history, []
    for steps in result.description.get("environments_reset_at", []):
        lines.append(
            f"resumed after {steps:,} environment steps from freshly reset environments, because "
            "their state could not be stored"
        )
    if history.environment_steps < result.description["total_steps"]:
        lines.append(f"stopped after {history.environment_steps:,} environment steps, as requested")
    episodes = len(history.episode_returns)
    if episodes:
        lines.append(
            f"mean return of the last {min(episodes, WINDOW)} episodes: "
            f"{history.final_return():.2f}"
        )
    else:
        lines.append("no episode has ended yet")
    if result.best_policy is not None:
        columns = history.columns()
        best = np.nanargmax(columns["evaluation_return"])
        lines.append(
            f"best evaluation during training: {columns['evaluation_return'][best]:.2f} after "
            f"{columns['environment_steps'][best]:,.0f} environment steps"
        )
    return lines


def run_compare(arguments: argparse.Namespace) -> None:
    """Compare, save, and print the table."""
    comparison = compare(
        arguments.env,
        arguments.algorithms,
        seeds=arguments.seeds,
        total_steps=arguments.total_steps,
        max_steps=arguments.max_steps,
        workers=arguments.workers,
        out=arguments.out,
        progress=True,
    )
    print(f"{comparison.table()}\n\n{arguments.out}/curves.png, runs.csv, summary.json")


def run_rlhf(arguments: argparse.Namespace) -> None:
    """Run the alignment chain and print the names of its files."""
    # Imported here because these modules load much of SciPy.
    with hold_interrupts():  # a signal would break the import of a compiled module
        from minirl.experiments.alignment.chain import METHODS
        from minirl.experiments.alignment.run import run_chain

    run_chain(
        arguments.out,
        beta=arguments.beta,
        reward=arguments.reward,
        model=arguments.model,
        methods=METHODS if "all" in arguments.methods else arguments.methods,
        labels=arguments.labels,
        seeds=arguments.seeds,
        seed=arguments.seed,
        say=partial(tqdm.write, file=sys.stdout),
        progress=True,
    )
    # Hidden files may remain from a run that was killed.
    names = sorted(path.name for path in Path(arguments.out).glob("[!.]*"))
    print(f"{arguments.out}: {', '.join(names)}")


def _trained_on(description: dict[str, Any], path: str) -> str:
    if "env" not in description:
        raise ValueError(f"{path} does not name the environment of its training; give --env")
    return str(description["env"])


def run_evaluate(arguments: argparse.Namespace) -> None:
    """Load a policy, evaluate it, and print mean and interval."""
    policy, description = load_policy(arguments.policy)
    evaluation = evaluate(
        arguments.env or _trained_on(description, arguments.policy),
        policy,
        episodes=arguments.episodes,
        seed=arguments.seed,
        greedy=not arguments.sampled,
        max_steps=arguments.max_steps,
    )
    low, high = evaluation.interval()
    interval = "" if math.isnan(low) else f", 95 % interval [{low:.2f}, {high:.2f}]"
    if description.get("partial", False):
        print(
            "the policy comes from a training run that stopped early, after "
            f"{description['environment_steps']:,} environment steps"
        )
    how = "sampled" if arguments.sampled else "greedy"
    print(
        f"mean return {evaluation.mean:.2f}{interval} over {arguments.episodes} {how} "
        f"episode{'s' if arguments.episodes > 1 else ''}; mean length "
        f"{evaluation.lengths.mean():.1f} steps"
    )
    if evaluation.cut:
        print(
            f"{evaluation.cut} episodes had not ended after {evaluation.lengths.max()} steps "
            "and were cut; --max-steps allows longer ones"
        )


def run_watch(arguments: argparse.Namespace) -> None:
    """Load a policy, draw one episode, and print its return."""
    policy, description = load_policy(arguments.policy)
    env = arguments.env or _trained_on(description, arguments.policy)
    total = watch(env, policy, arguments.out, seed=arguments.seed)
    print(f"return {total:.1f}; {Path(arguments.out)}")


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Show each warning as one line on stderr, without file name and line number."""

    def show(message: Warning | str, *location: Any, **unused: Any) -> None:
        text = re.sub("\x1b\\[[0-9;]*m", "", str(message))  # Gymnasium's are coloured
        tqdm.write(f"minirl: warning: {' '.join(text.split())}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; errors become one line on stderr and a non-zero exit status.

    Output that cannot be printed does not stop a command, for example when the reader of a pipe
    has ended (`| head -1`). The results are in files, and the command completes them.
    """
    commands = {
        "train": run_train,
        "compare": run_compare,
        "rlhf": run_rlhf,
        "evaluate": run_evaluate,
        "watch": run_watch,
    }
    with lasting_streams() as output, contextlib.ExitStack() as interruptible:
        arguments = parser().parse_args(argv)
        interruptible.enter_context(raise_interrupts())
        interruptible.enter_context(_warnings_as_lines())
        try:
            commands[arguments.command](arguments)
            output.flush()
            if output.error and not isinstance(output.error, BrokenPipeError):
                raise output.error
        except KeyboardInterrupt as error:
            way_out = "; finished runs are kept, and the same command continues from them"
            resumes = arguments.command in ("compare", "rlhf")
            print(f"minirl: interrupted{way_out if resumes else ''}", file=sys.stderr)
            return exit_status(error)
        except MemoryError as error:
            print(
                "minirl: there is not enough memory "
                f"({' '.join(str(error).split()) or 'none left'}); use fewer "
                "parallel environments, shorter rollouts, or less data",
                file=sys.stderr,
            )
            return 1
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            reason = error.args[0] if isinstance(error, KeyError) else error
            notes = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
            # The text of a space, for example, may have several lines.
            print("minirl:", " ".join(f"{reason}{notes}".split()), file=sys.stderr)
            return exit_status(error)
    return 0


if __name__ == "__main__":
    status = main()
    exit_on_interrupt()  # there is nothing left to save
    sys.exit(status)
