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
from minirl.experiments.compare import compare
from minirl.experiments.evaluation import evaluate, watch
from minirl.experiments.overrides import with_overrides
from minirl.experiments.runs import claimed_folder, save_training, saved_settings
from minirl.presets import PRESETS, Preset, preset
from minirl.support.checkpoint import checkpoint_steps
from minirl.support.history import WINDOW, ReturnReached
from minirl.support.interrupts import exit_on_interrupt, exit_status, raise_interrupts
from minirl.support.serialization import describe, load_policy
from minirl.support.streams import lasting_streams
from minirl.support.validation import require_count
from minirl.training import Result, TrainingStopped, require_trainable, train


def parser() -> argparse.ArgumentParser:
    """The arguments of all commands."""
    main = argparse.ArgumentParser(prog="python -m minirl", description="The textbook that runs.")
    shown = argparse.ArgumentDefaultsHelpFormatter
    commands = main.add_subparsers(dest="command", required=True)
    names = ", ".join(ALGORITHMS)
    set_help = (
        "a hyperparameter or setting, e.g. max_kl=0.02, num_envs=4, objective=FixedKL(1.0) or "
        "learning_rate=LinearSchedule(1e-3); may be repeated"
    )
    max_steps_help = (
        "an evaluation episode is cut after this number of steps; None: the environment's own time "
        "limit, or 1000 if it has none"
    )

    command = commands.add_parser("train", help="train one policy", formatter_class=shown)
    command.add_argument("env", help="Gymnasium id, e.g. CartPole-v1")
    command.add_argument("--algorithm", default="ppo", help=names)
    command.add_argument("--total-steps", type=int, default=100_000, help="environment steps")
    command.add_argument("--num-envs", type=int, help="parallel environments; None: the preset's")
    command.add_argument("--seed", type=int, default=0, help="of all randomness")
    command.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=set_help)
    command.add_argument(
        "--stop-at",
        type=float,
        metavar="RETURN",
        help="stop as soon as the mean return of the last 100 episodes is at least this",
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
        help="go on from checkpoint.pkl in the folder, if there is one; a checkpoint can execute "
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
    command.add_argument("--seeds", type=int, default=5, help="how many")
    command.add_argument("--total-steps", type=int, default=100_000, help="of each run")
    command.add_argument("--max-steps", type=int, help=max_steps_help)
    command.add_argument("--workers", type=int, default=2, help="processes")
    command.add_argument(
        "--out", required=True, help="folder for curves.png, runs.csv and summary.json"
    )

    command = commands.add_parser(
        "rlhf",
        help="align a tiny language model, every stage against the exact optimum",
        formatter_class=shown,
    )
    command.add_argument("--beta", type=float, default=0.3, help="price of KL, reward per nat")
    command.add_argument(
        "--reward",
        choices=["gold", "learned"],
        default="gold",
        help="what the methods learn from; they are judged by gold",
    )
    aligning = ", ".join(PRESETS["minirl/TokenGeneration-v0"])
    command.add_argument(
        "--methods", nargs="+", default=["all"], help=f"{aligning}, dpo, ipo, best-of-n, or all"
    )
    command.add_argument("--labels", type=int, default=3_000, help="preference pairs")
    command.add_argument("--seeds", type=int, default=2, help="runs of each method")
    command.add_argument(
        "--seed",
        type=int,
        default=2,
        help="of all randomness; over-optimisation made PPO fall with 5 seeds of 8, also with 2",
    )
    command.add_argument(
        "--out",
        required=True,
        help="folder for frontier.png, learning.png, overoptimisation.png, samples.md and "
        "summary.json",
    )

    command = commands.add_parser(
        "evaluate", help="run a saved policy for fresh episodes", formatter_class=shown
    )
    command.add_argument("policy", help="policy.npz of a training run")
    command.add_argument("--env", help="None: the one it was trained on")
    command.add_argument("--episodes", type=int, default=100, help="how many")
    command.add_argument("--seed", type=int, default=0, help="of all randomness")
    command.add_argument("--sampled", action="store_true", help="sample actions")
    command.add_argument("--max-steps", type=int, help=max_steps_help)

    command = commands.add_parser(
        "watch", help="save one episode of a saved policy as a GIF", formatter_class=shown
    )
    command.add_argument("policy", help="policy.npz of a training run")
    command.add_argument("--env", help="None: the one it was trained on")
    command.add_argument("--seed", type=int, default=0, help="of all randomness")
    command.add_argument("--out", required=True, help="e.g. agent.gif")
    return main


def run_train(arguments: argparse.Namespace) -> None:
    """Train, save, say where; a run that is finished already is not trained again."""
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
    going_on = arguments.resume and checkpoint.exists()
    saved = saved_settings(folder)
    # A checkpoint beside a finished policy: killed while saving, so the rest is saved again.
    if saved is not None and not saved.get("partial", False) and not going_on:
        print(
            f"{folder} holds this run already, finished after {saved['environment_steps']:,} "
            "environment steps; to train again, delete its policy.npz or choose another folder"
        )
        return
    if checkpoint.exists() and not arguments.resume:
        raise ValueError(
            f"{checkpoint} holds this run after {checkpoint_steps(checkpoint):,} environment "
            "steps; add --resume to go on from it, or delete it to train from the start"
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
            resume=checkpoint if going_on else None,
            progress=True,
        )
    except TrainingStopped as stopped:
        if save_training(stopped.result, folder):
            stopped.add_note(f"what was learned is in {folder}, marked as partial")
        else:
            stopped.add_note(f"{folder} keeps the policy of a longer training of this run")
        if checkpoint.exists():
            stopped.add_note(
                f"{checkpoint} is kept, the same command with --resume goes on from it"
            )
        raise
    names = save_training(result, folder)
    # Also what a killed process left of a checkpoint that it was writing.
    for unneeded in [checkpoint, *folder.glob(".checkpoint.pkl.*")]:
        unneeded.unlink(missing_ok=True)
    for line in _summary(result):
        print(line)
    print(f"{folder}/{', '.join(names)}")


def _summary(result: Result) -> list[str]:
    """What a finished training run says."""
    history, lines = result.history, []
    for steps in result.settings.get("environments_reset_at", []):
        lines.append(
            f"resumed after {steps:,} environment steps from freshly reset environments, because "
            "their state could not be stored"
        )
    if history.environment_steps < result.settings["total_steps"]:
        lines.append(f"stopped after {history.environment_steps:,} environment steps, as asked for")
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
    """Compare, save, print the table."""
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
    """Run the alignment chain, say where its pictures are."""
    # Imported here, because they load much of SciPy.
    from minirl.experiments.alignment.chain import METHODS
    from minirl.experiments.alignment.run import run_chain

    run_chain(
        arguments.out,
        beta=arguments.beta,
        reward=arguments.reward,
        methods=METHODS if "all" in arguments.methods else arguments.methods,
        labels=arguments.labels,
        seeds=arguments.seeds,
        seed=arguments.seed,
        say=partial(tqdm.write, file=sys.stdout),
        progress=True,
    )
    visible = Path(arguments.out).glob("[!.]*")  # a run that was killed may leave a hidden file
    left = sorted(path.name for path in visible)
    print(f"{arguments.out}: {', '.join(left)}")


def _trained_on(settings: dict[str, Any], path: str) -> str:
    if "env" not in settings:
        raise ValueError(f"{path} does not say which environment it was trained on; give --env")
    return str(settings["env"])


def run_evaluate(arguments: argparse.Namespace) -> None:
    """Load, evaluate, print mean and interval."""
    policy, settings = load_policy(arguments.policy)
    found = evaluate(
        arguments.env or _trained_on(settings, arguments.policy),
        policy,
        episodes=arguments.episodes,
        seed=arguments.seed,
        greedy=not arguments.sampled,
        max_steps=arguments.max_steps,
    )
    low, high = found.interval()
    interval = "" if math.isnan(low) else f", 95 % interval [{low:.2f}, {high:.2f}]"
    if settings.get("partial", False):
        print(
            "the policy of a training run that stopped early, after "
            f"{settings['environment_steps']:,} environment steps"
        )
    how = "sampled" if arguments.sampled else "greedy"
    print(
        f"mean return {found.mean:.2f}{interval} over {arguments.episodes} {how} "
        f"episode{'s' if arguments.episodes > 1 else ''}; mean length "
        f"{found.lengths.mean():.1f} steps"
    )
    if found.cut:
        print(
            f"{found.cut} episodes had not ended after {found.lengths.max()} steps and were cut; "
            "--max-steps allows longer ones"
        )


def run_watch(arguments: argparse.Namespace) -> None:
    """Load, draw one episode, say its return."""
    policy, settings = load_policy(arguments.policy)
    env = arguments.env or _trained_on(settings, arguments.policy)
    total = watch(env, policy, arguments.out, seed=arguments.seed)
    print(f"return {total:.1f}; {Path(arguments.out)}")


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Show each warning as one line on stderr, without its place in the code."""

    def show(message: Warning | str, *place: Any, **unused: Any) -> None:
        text = re.sub("\x1b\\[[0-9;]*m", "", str(message))  # Gymnasium's are coloured
        tqdm.write(f"minirl: warning: {' '.join(text.split())}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; errors become one line on stderr and a non-zero exit status.

    What can't be printed is no reason to stop: results are in files, and if nobody reads the
    output of a command any longer (`| head -1`), the command still completes them.
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
            kept = "; finished runs are kept, the same command goes on from them"
            resumes = arguments.command in ("compare", "rlhf")
            print(f"minirl: interrupted{kept if resumes else ''}", file=sys.stderr)
            return exit_status(error)
        except MemoryError as error:
            print(
                f"minirl: memory is not enough ({' '.join(str(error).split()) or 'no more left'}); "
                "use fewer parallel environments, shorter rollouts, or less data",
                file=sys.stderr,
            )
            return 1
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            reason = error.args[0] if isinstance(error, KeyError) else error
            notes = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
            # One line, whatever the message: a space's text may take several.
            print("minirl:", " ".join(f"{reason}{notes}".split()), file=sys.stderr)
            return exit_status(error)
    return 0


if __name__ == "__main__":
    status = main()
    exit_on_interrupt()  # there is nothing left to save
    sys.exit(status)
