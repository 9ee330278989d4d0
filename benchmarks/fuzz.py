"""Try to break minirl: random command lines and calls, damaged files, killed processes.

    commands  `python -m minirl` with random arguments: status 0, or an error of one line
    calls     public functions with one argument replaced by a wrong or a nearly right value
    files     policies and stored runs with changed bits, cut short, or with other members
    kills     SIGKILL, SIGTERM or SIGINT at a random moment; the same command must then continue

Every attempt has a number n. The attempt depends only on its part, on n and on `--seed`, and a
failure prints the command that repeats it. The parts take turns until the time is over. Attempts
run in a child process with limited memory and time, so that no attempt can stop the others. The
exit status is 1 if anything failed.

    python -m benchmarks.fuzz --minutes 60
    python -m benchmarks.fuzz --replay calls:123
"""

import argparse
import contextlib
import io
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

if __name__ == "__main__" and "--child" in sys.argv:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

HERE = Path(__file__).resolve()
PARTS = ("commands", "calls", "files", "kills")
SHARES = {"commands": 300, "calls": 1000, "files": 2, "kills": 1}  # attempts per turn
MEMORY = 2 * 2**30  # bytes of address space that a child may add
TIME_LIMIT = {"commands": 10.0, "calls": 10.0, "files": 30.0, "kills": 600.0}  # seconds per attempt
START_LIMIT = 120.0  # seconds until a child has imported everything


@dataclass(frozen=True)
class Outcome:
    """The result of one attempt; `kind` begins with "failure" if minirl did something wrong."""

    part: str
    index: int
    kind: str
    text: str

    @property
    def failed(self) -> bool:
        """Whether minirl did something wrong."""
        return self.kind.startswith("failure")


@dataclass(frozen=True)
class Attempt:
    """Something to try.

    Parameters
    ----------
    text : str
        Its description.
    run : callable
        Tries it; returns the kind of the outcome and details.
    may_be_long : bool
        Whether it requires so much work that running out of time is not a failure.
    """

    text: str
    run: Callable[[], tuple[str, str]]
    may_be_long: bool = False


Prepared = Callable[[np.random.Generator], Attempt]


class TooSlow(BaseException):
    """The attempt took too long. No `except Exception` of the tested code catches this."""


def generator(seed: int, part: str, index: int) -> np.random.Generator:
    """The generator of the random numbers of one attempt."""
    return np.random.default_rng([seed, PARTS.index(part), index])


# ---------------------------------------------------------------- attempts in a child process


def run_child(part: str, seed: int, first: int) -> None:
    """Make attempts first, first + 1, ... and write a line of JSON before and after each."""
    with contextlib.suppress(ImportError):
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(silence, descriptor)
    prepared = PREPARE[part]()
    signal.signal(signal.SIGALRM, _stop)
    # When the parent has ended, its pipe is closed, and writing the next line ends this process.
    for index in range(first, sys.maxsize):

        def announced(rng: np.random.Generator, index: int = index) -> Attempt:
            attempt = prepared(rng)
            print(json.dumps([index, attempt.text[:2000]]), file=lines)
            return attempt

        kind, text = one_attempt(announced, part, seed, index)
        print(json.dumps([index, kind, text[:2000]]), file=lines)


def one_attempt(prepared: Prepared, part: str, seed: int, index: int) -> tuple[str, str]:
    """Kind and text of an attempt, made in a fresh folder."""
    folder = tempfile.mkdtemp(prefix="minirl-fuzz-")
    before = os.getcwd()
    attempt = None
    try:
        os.chdir(folder)
        attempt = prepared(generator(seed, part, index))
        signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT[part])
        kind, more = attempt.run()
        return kind, f"{attempt.text}: {more}"
    except TooSlow:
        assert attempt is not None
        return "accepted" if attempt.may_be_long else "failure: time", attempt.text
    except Exception as error:  # an error of the fuzzer, not of minirl
        return "failure: fuzzer", f"{error}\n{traceback.format_exc()}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)


def _stop(number: int, frame: Any) -> None:
    raise TooSlow


class Child:
    """A process that makes the attempts of one part, and is replaced when it dies or hangs."""

    def __init__(self, part: str, seed: int, first: int = 0) -> None:
        self.part, self.seed, self.next = part, seed, first
        self.process: subprocess.Popen[bytes] | None = None
        self.pending = b""
        self.begun = ""  # description of the attempt without an outcome yet

    def outcomes(self, count: int, until: float) -> Iterator[Outcome]:
        """The outcomes of the next `count` attempts, or of those made until the time is over."""
        while count > 0 and time.monotonic() < until:
            line = self._line()
            if line is None:
                yield Outcome(self.part, self.next, "failure: died or hung", self.begun)
                self.next += 1
                count -= 1
            elif len(line) == 2:
                self.next, self.begun = line
            else:
                yield Outcome(self.part, *line)
                self.next = line[0] + 1
                count -= 1

    def _line(self) -> list[Any] | None:
        limit = 3 * TIME_LIMIT[self.part]
        if self.process is None:
            limit += START_LIMIT
            command = [sys.executable, str(HERE), "--child", self.part]
            command += ["--seed", str(self.seed), "--first", str(self.next)]
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
            )
        pipe = self.process.stdout
        assert pipe is not None
        while b"\n" not in self.pending:
            ready, _, _ = select.select([pipe], [], [], limit)
            data = os.read(pipe.fileno(), 2**16) if ready else b""
            if not data:
                self.close()
                return None
            self.pending += data
        line, _, self.pending = self.pending.partition(b"\n")
        values: list[Any] = json.loads(line)
        return values

    def close(self) -> None:
        """End the process and all processes that it started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            if self.process.stdout:
                self.process.stdout.close()
        self.process, self.pending = None, b""


# ---------------------------------------------------------------- (a) command lines

ENVIRONMENTS = (
    "CartPole-v1",
    "minirl/Chain-v0",
    "minirl/GridWorld-v0",
    "minirl/LQR-v0",
    "Pendulum-v1",
    "FrozenLake-v1",
    "Acrobot-v1",
    "minirl/TokenGeneration-v0",
)
WRONG_ENVIRONMENTS = (
    "",
    " ",
    ":CartPole-v1",
    "CartPole",
    "CartPole-v99",
    "cartpole-v1",
    "CartPole-v1 ",
    "./my_env:My-v0",
    "my_env:My-v0",
    "os:path",
    "gymnasium:CartPole-v1",
    "minirl:minirl/Chain-v0",
    "minirl/Nothing-v0",
    "Blackjack-v1",
    "Taxi-v3",
    "CarRacing-v3",
    "LunarLander-v3",
    "ALE/Pong-v5",
    "a" * 300,
    "Cart\nPole-v1",
    "环境-v0",
    "None",
    "precious.txt",
)
NUMBERS = ("0", "1", "2", "3", "7", "16")
WRONG_NUMBERS = (
    "-1",
    "0.5",
    "1e3",
    "nan",
    "inf",
    "-inf",
    "",
    " ",
    "x",
    "1_000",
    "١٢",
    "None",
    "True",
    "100000000",
    str(10**18),
    str(10**30),
    "9" * 5000,
)
VALUES = (
    "0.5",
    "1",
    "2",
    "4",
    "16",
    "1e-3",
    "None",
    "True",
    "False",
    "(4,)",
    "(4, 4)",
    "'float64'",
    "LinearSchedule(1e-3)",
    "GAE(0.9)",
    "GAE(0.9, 0.8)",
    "RewardToGo(0.9)",
    "ReturnScaling(0.9)",
    "CriticFit(epochs=1)",
    "TableFit()",
    "FixedKL(0.5)",
    "AdaptiveKL()",
    "Clipped(0.1)",
    "Adam()",
    "SGD()",
)
WRONG_VALUES = (
    "",
    " ",
    " 0.01",
    "-1",
    "0",
    "-0.0",
    "nan",
    "float('nan')",
    "inf",
    "1e999",
    "-1e999",
    "1e26",
    "1e300",
    "1e-320",
    str(10**20),
    "9" * 400,
    "'0.7'",
    '"0.7"',
    "b'x'",
    "1j",
    "[]",
    "[4]",
    "()",
    "(0,)",
    "(-1,)",
    "(4.0,)",
    "('a',)",
    "(1000000000,)",
    "{}",
    "{'a': 1}",
    "{1, 2}",
    "...",
    "lambda: 0",
    "__import__('os').system('touch hacked')",
    "open('hacked', 'w')",
    "9**9**9",
    "1+1",
    "GAE",
    "GAE()()",
    "GAE(1, 2, 3)",
    "GAE(discount=2)",
    "GAE(**{'discount': 0.9})",
    "GAE(*[0.9])",
    "Adam(beta1='x')",
    "LinearSchedule()",
    "LinearSchedule('a')",
    "LinearSchedule(LinearSchedule(1))",
    "CriticFit(optimizer=GAE())",
    "FixedKL(AdaptiveKL())",
    "Settings()",
    "PPO()",
    "(" * 200,
    "(" * 100 + ")" * 100,
    "-" * 3000 + "1",
    "\0",
    "环境",
    "'float16'",
    "'int64'",
    "None, None",
    "x=1",
    "#",
    "\\",
)
FIELDS = (
    "num_envs",
    "rollout_steps",
    "whole_episodes",
    "group_size",
    "advantages",
    "hidden_sizes",
    "initial_log_std",
    "normalize_observations",
    "reward_transform",
    "critic_fit",
    "discount_states",
    "dtype",
    "objective",
    "learning_rate",
    "epochs",
    "minibatch_size",
    "target_kl",
    "normalize_advantages",
    "entropy_coefficient",
    "max_gradient_norm",
    "optimizer",
    "max_kl",
    "damping",
    "cg_iterations",
    "line_search_shrink",
    "line_search_tries",
    "step_size",
)
WRONG_FIELDS = ("", " ", "gamma", "num-envs", "__class__", "type", "seed", "total_steps", "学习率")
ALGORITHMS = ("policy-gradient", "natural-gradient", "trpo", "ppo", "rloo", "grpo")
WRONG_ALGORITHMS = ("", "PPO", "dqn", "ppo ", "pp0", "dpo", "../ppo")
METHODS = ("policy-gradient", "ppo", "rloo", "grpo", "dpo", "ipo", "best-of-n", "all")
FOLDERS = ("out", "out", "out", "a/b/c", "./out/", ".")
WRONG_FOLDERS = ("", "precious.txt", "precious.txt/out", "/proc/none", "/dev/null", "\0", "a" * 300)
POLICIES = ("good.npz",)
WRONG_POLICIES = ("", "nowhere.npz", "precious.txt", ".", "/dev/null", "empty.npz", "foreign.npz")


def random_command(rng: np.random.Generator) -> list[str]:
    """Arguments of `python -m minirl`; about one value in six is wrong."""

    def pick(options: Sequence[str]) -> str:
        return options[rng.integers(len(options))]

    def either(right: Sequence[str], wrong: Sequence[str]) -> str:
        return pick(wrong) if rng.random() < 1 / 6 else pick(right)

    def sometimes(flag: str, *values: str) -> list[str]:
        return [flag, *values] if rng.random() < 0.5 else []

    commands = ("train", "train", "train", "compare", "compare", "evaluate", "watch", "rlhf")
    command = either(commands, ("", "Train", "--help"))
    out = ["--out", either(FOLDERS, WRONG_FOLDERS)]
    number, env = (lambda: either(NUMBERS, WRONG_NUMBERS)), either(ENVIRONMENTS, WRONG_ENVIRONMENTS)
    if command == "train":
        argv = [command, env, *out, "--total-steps", number()]
        argv += ["--set", "rollout_steps=8", *sometimes("--num-envs", number())]
        argv += sometimes("--algorithm", either(ALGORITHMS, WRONG_ALGORITHMS))
        argv += sometimes("--seed", number())
        for flag in ("--stop-at", "--evaluate-every", "--checkpoint-every"):
            argv += [flag, number()] if rng.random() < 0.1 else []
        argv += ["--resume"] if rng.random() < 0.1 else []
        for _ in range(rng.integers(3)):
            name = either(FIELDS, WRONG_FIELDS)
            equals = "=" if rng.random() < 0.95 else pick(("", "==", " = ", ":"))
            argv += ["--set", f"{name}{equals}{either(VALUES, WRONG_VALUES)}"]
    elif command == "compare":
        env = env if rng.random() < 0.3 else "minirl/Chain-v0"
        algorithms = [either(ALGORITHMS, WRONG_ALGORITHMS) for _ in range(rng.integers(1, 3))]
        argv = [command, env, *out, "--algorithms", *algorithms, "--total-steps", number()]
        argv += ["--seeds", either(("1", "2"), WRONG_NUMBERS)]
        argv += ["--workers", either(("1",), ("0", "-1", "x", "1.0", "", "nan"))]
    elif command == "rlhf":
        argv = [command, *out, *sometimes("--beta", either(("0.3", "1"), WRONG_NUMBERS))]
        argv += sometimes("--methods", *(either(METHODS, ("", "PPO", "x")) for _ in range(2)))
        argv += sometimes("--labels", number())
        argv += [*sometimes("--seeds", number()), *sometimes("--seed", number())]
        argv += sometimes("--reward", either(("gold", "learned"), ("", "Gold")))
    elif command in ("evaluate", "watch"):
        argv = [command, either(POLICIES, WRONG_POLICIES), *sometimes("--env", env)]
        argv += sometimes("--seed", number())
        if command == "evaluate":
            argv += ["--episodes", either(("1", "2"), WRONG_NUMBERS), *sometimes("--sampled")]
        else:
            argv += ["--out", either(("agent.gif",), (*WRONG_FOLDERS, "agent", "a.png", "a.txt"))]
    else:
        argv = [command, env, *out]
    if rng.random() < 0.03:
        argv.insert(rng.integers(len(argv) + 1), pick(("--nothing", "-h", "x", "--", "-1")))
    if rng.random() < 0.03:
        del argv[rng.integers(len(argv))]
    return argv


def asks_for_years(argv: Sequence[str]) -> bool:
    """Whether a number of steps, episodes, seeds or labels is too large for one attempt."""
    counts = ("--total-steps", "--episodes", "--seeds", "--labels")
    for flag, value in pairwise(argv):
        with contextlib.suppress(ValueError):
            if flag in counts and int(value) >= 1000:
                return True
    return False


PRECIOUS = "written by a user\n"


def write_precious_files() -> dict[str, bytes]:
    """Write files that no command may change into the current folder; name -> content."""
    import minirl

    policy = minirl.Policy(minirl.MLP((4, 4, 2)), minirl.Categorical, np.zeros(30, np.float32))
    minirl.save_policy(policy, "good.npz", {"env": "CartPole-v1"})
    Path("precious.txt").write_text(PRECIOUS)
    Path("empty.npz").touch()
    np.savez("foreign.npz", weights=np.arange(3))
    return {path.name: path.read_bytes() for path in Path().iterdir()}


def prepare_commands() -> Prepared:
    """Attempts that call `main` in this process, without drawing and without RLHF's stages."""
    from minirl import __main__ as command_line
    from minirl.experiments import figures
    from minirl.experiments.alignment import run as alignment
    from minirl.support import serialization

    def skip(*arguments: Any, **named: Any) -> Any:
        raise ValueError("skipped by the fuzzer")

    figures.plot_training = figures.plot_comparison = lambda *arguments, **named: None
    alignment.prepare = skip
    command_line.compare = partial(command_line.compare, evaluation_episodes=2)
    serialization.versions = cache(serialization.versions)  # it starts git

    def attempt(rng: np.random.Generator) -> Attempt:
        argv = random_command(rng)
        shown = json.dumps(argv, ensure_ascii=False)[:600]
        if rng.random() < 0.01 and "rlhf" not in argv:
            how = list(STREAMS)[rng.integers(len(STREAMS))]
            return Attempt(f"{shown} {how}", lambda: run_process(argv, how), may_be_long=True)
        return Attempt(shown, lambda: run_command(argv), asks_for_years(argv))

    return attempt


def run_command(argv: Sequence[str]) -> tuple[str, str]:
    """One command line in this process."""
    from minirl.__main__ import main

    precious = write_precious_files()
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status: Any = main(argv)
    except SystemExit as leaving:
        status = leaving.code
    except TooSlow:
        raise
    except BaseException as error:
        return f"failure: {type(error).__name__}", str(error)
    if changed_files(precious):
        return "failure: a file was changed", ", ".join(changed_files(precious))
    if Path("hacked").exists():
        return "failure: code was executed", ""
    kind = judge_streams(status, out.getvalue(), err.getvalue())
    return kind, f"status {status}, {err.getvalue()[-600:]!r}"


# Redirections and variables with which a command may be started from a shell.
STREAMS = {
    "as usual": '"$@" >out.txt 2>err.txt',
    "| head -1": '"$@" 2>err.txt | head -1 >out.txt',
    "| true": '"$@" 2>err.txt | true',
    ">&-": '"$@" >&- 2>err.txt',
    "2>&-": '"$@" >out.txt 2>&-',
    "<&-": '"$@" <&- >out.txt 2>err.txt',
    ">/dev/full": '"$@" >/dev/full 2>err.txt',
    "ASCII": 'LC_ALL=C PYTHONIOENCODING=ascii PYTHONUTF8=0 "$@" >out.txt 2>err.txt',
}


def run_process(argv: Sequence[str], how: str) -> tuple[str, str]:
    """One command line as a separate process, with unusual streams."""
    if any("\0" in argument for argument in argv):
        return "refused", "no process can have this argument"
    precious = write_precious_files()
    for name in ("out.txt", "err.txt"):
        Path(name).touch()
    command = ["bash", "-o", "pipefail", "-c", STREAMS[how], "bash", sys.executable, "-m", "minirl"]
    process = subprocess.Popen([*command, *argv], start_new_session=True)
    try:
        status = process.wait()
    finally:  # also if it takes too long
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if changed_files(precious):
        return "failure: a file was changed", ", ".join(changed_files(precious))
    out, err = (Path(name).read_text(errors="replace") for name in ("out.txt", "err.txt"))
    shown = f"status {status}, {err[-600:]!r}"
    if how == "as usual":
        return judge_streams(status, out, err), shown
    if "Traceback" in err or "Exception ignored" in err or status < 0:
        return "failure: traceback", shown
    if (
        status == 0
        and argv[0] == "train"
        and "-h" not in argv
        and not list(Path().rglob("policy.npz"))
    ):
        return "failure: results were lost", shown
    return "accepted", shown


def judge_streams(status: Any, out: str, err: str) -> str:
    """The kind of an outcome: whether status and streams of a command are right."""
    # The text of a progress bar is followed or overwritten after a carriage return.
    lines = [line.rpartition("\r")[2] for line in err.split("\n")]
    lines = [line for line in lines if line.strip() and "%|" not in line and "it/s" not in line]
    if "Traceback" in err:
        return "failure: traceback"
    if "Warning: " in err:
        return "failure: warning"
    if status == 0:
        return "failure: nan" if " nan" in out.lower() else "accepted"
    if status == 2 and "error: " in err:
        return "refused"
    if status not in (1, 130):
        return f"failure: status {status}"
    lines = [line for line in lines if not line.startswith("minirl: warning: ")]
    if len(lines) != 1 or not lines[0].startswith("minirl: ") or len(lines[0]) > 1500:
        return "failure: message is not one line"
    return "refused"


# ---------------------------------------------------------------- (b) calls


def prepare_calls() -> Prepared:
    """Attempts that call public functions."""
    sys.path.insert(0, str(HERE.parents[1]))
    from benchmarks.fuzz_calls import Calls

    folder = tempfile.mkdtemp(prefix="minirl-fuzz-")
    before = os.getcwd()
    os.chdir(folder)
    try:
        calls = Calls()
    finally:
        os.chdir(before)
        shutil.rmtree(folder)
    return lambda rng: Attempt(*calls.attempt(rng))


# ---------------------------------------------------------------- (c) files


def prepare_files() -> Prepared:
    """Attempts that damage a policy or a stored run."""
    return lambda rng: Attempt("a damaged file", lambda: damage_file(rng))


def damage_file(rng: np.random.Generator) -> tuple[str, str]:
    """Damage a random policy or run: flip each bit of a random part, then damage it further."""
    import minirl
    from minirl.support.serialization import load_arrays, save_arrays

    states, actions = (int(number) for number in rng.integers(1, 6, size=2))
    policy = minirl.Policy(
        minirl.Table(states, actions), minirl.Categorical, rng.normal(size=states * actions)
    )
    if rng.random() < 0.5:
        network = minirl.WithLogStd(minirl.MLP((states, actions)), actions)
        moments = minirl.RunningMoments(7, rng.normal(size=states), rng.uniform(size=states))
        theta = rng.normal(size=network.size).astype(np.float32)
        policy = minirl.Policy(network, minirl.DiagonalGaussian, theta, moments)
    path = Path("file.npz")
    if rng.random() < 0.5:
        minirl.save_policy(policy, path, {"env": "CartPole-v1", "seed": int(rng.integers(9))})

        def load() -> Any:
            return minirl.load_policy(path)

        expected: type[Exception] = minirl.PolicyFileError
    else:
        columns = {name: rng.normal(size=3) for name in ("scores", "kl", "environment_steps")}
        save_arrays(path, "minirl-run-1", {"seed": 3}, columns)

        def load() -> Any:
            return load_arrays(path, "minirl-run-1")

        expected = ValueError
    whole = path.read_bytes()
    load()
    for how, content in damages(whole, rng):
        path.write_bytes(content)
        try:
            load()
        except expected as error:
            if expected is not ValueError and "\n" in str(error):
                return "failure: message is not one line", f"{how}: {error}"
        except Exception as error:
            if expected is not ValueError:
                return f"failure: {type(error).__name__}", f"{how}: {error}"
        else:
            if not how.startswith("sealed"):
                return "failure: damage was not noticed", how
    return "refused", ""


def damages(whole: bytes, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Descriptions and contents of damaged files."""
    start = int(rng.integers(len(whole)))
    for position in range(start, min(start + 64, len(whole))):
        for bit in range(8):
            flipped = bytes([whole[position] ^ 1 << bit])
            yield (
                f"bit {bit} of byte {position}",
                whole[:position] + flipped + whole[position + 1 :],
            )
    for _ in range(16):
        first, second = sorted(int(number) for number in rng.integers(len(whole), size=2))
        noise = rng.bytes(second - first)
        yield f"cut at {second}", whole[:second]
        if first < second:
            yield f"without {first}:{second}", whole[:first] + whole[second:]
            if noise != whole[first:second]:
                yield f"noise in {first}:{second}", whole[:first] + noise + whole[second:]
            yield f"twice {first}:{second}", whole[:second] + whole[first:]
    # With the right digest, files may load, but loading must not raise any other exception.
    for _ in range(64):
        content = bytearray(whole[:-64])
        for position in rng.integers(len(content), size=rng.integers(1, 4)):
            content[position] ^= 1 << rng.integers(8)
        yield "sealed after flips", sealed(bytes(content))
    yield "sealed bomb", bomb()


def sealed(content: bytes) -> bytes:
    """Contents followed by their right digest, as in a forged file."""
    import hashlib

    return content + hashlib.sha256(content).hexdigest().encode()


def bomb() -> bytes:
    """An archive of a few kilobytes with a member of 64 megabytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.npy", bytes(2**26))
        archive.comment = bytes(64)
    return sealed(buffer.getvalue()[:-64])


# ---------------------------------------------------------------- (d) kills

KILLED = {
    "train": "train CartPole-v1 --total-steps 8000 --set rollout_steps=64 --seed 1",
    "resume": "train CartPole-v1 --total-steps 8000 --set rollout_steps=64 --seed 1 "
    "--checkpoint-every 1000 --resume",
    "compare": "compare minirl/Chain-v0 --algorithms policy-gradient ppo --total-steps 3000 "
    "--seeds 3 --workers 2",
    "rlhf": "rlhf --methods best-of-n --labels 100 --seeds 1",
}


def prepare_kills() -> Prepared:
    """Attempts that start a command and kill it; one run without a kill comes first."""
    with tempfile.TemporaryDirectory(prefix="minirl-fuzz-") as folder:
        subprocess.run(command_line("train"), cwd=folder, check=True, capture_output=True)
        parameters = trained_parameters(Path(folder))
    return lambda rng: Attempt("a killed command", lambda: kill_and_repeat(rng, parameters))


def command_line(name: str) -> list[str]:
    """One of the commands of `KILLED` as a process."""
    return [sys.executable, "-m", "minirl", *KILLED[name].split(), "--out", "out"]


def trained_parameters(folder: Path) -> bytes:
    """The parameters of the policy that a training run has saved."""
    import minirl

    return minirl.load_policy(folder / "out" / "policy.npz")[0].parameters.tobytes()


def kill_and_repeat(rng: np.random.Generator, parameters: bytes) -> tuple[str, str]:
    """A command, killed at random moments up to three times, and then run to its end."""
    name = list(KILLED)[rng.choice(4, p=(0.2, 0.3, 0.4, 0.1))]
    killed: list[str] = []
    for _ in range(rng.integers(1, 4)):
        finished = finished_files()
        kind, more = kill(name, rng)
        killed.append(more)
        if kind != "accepted":
            return kind, f"{name}: {', '.join(killed)}"
        lost = changed_files(finished)
        if lost:
            return "failure: finished work was lost", f"{name}: {', '.join(killed)}: {lost}"
    shown = f"{name}: {', '.join(killed)}"
    finished = finished_files()
    done = subprocess.run(command_line(name), capture_output=True, text=True, timeout=250)
    if done.returncode:
        return "failure: the same command fails", f"{shown}: {done.stderr[-600:]}"
    if changed_files(finished):
        return "failure: finished work was lost", f"{shown}: {changed_files(finished)}"
    if name in ("train", "resume"):
        if trained_parameters(Path()) != parameters:
            return "failure: another policy than without kills", shown
        finished = {"out/policy.npz": Path("out/policy.npz").read_bytes()}
        kind, more = kill(name, rng)  # a finished run must survive this too
        if kind != "accepted" or changed_files(finished):
            return "failure: a finished run was changed", f"{shown}, {more}"
    return "accepted", shown


def kill(name: str, rng: np.random.Generator) -> tuple[str, str]:
    """Start a command and kill it at a random moment."""
    number = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[rng.integers(3)]
    after = float(rng.uniform(0, 20 if name == "rlhf" else 8))
    shown = f"{number.name} after {after:.2f} s"
    with open("err", "wb") as err:
        process = subprocess.Popen(
            command_line(name), stdout=subprocess.DEVNULL, stderr=err, start_new_session=True
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after)
        if process.poll() is None:
            # Ctrl-C is sent to the whole group, other signals only to the process.
            send = os.killpg if number is signal.SIGINT else os.kill
            send(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
    ended = process.poll() is not None
    survivors = group_members(process.pid, patience=10) if ended else []
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if not ended:
        return "failure: did not end", shown
    if survivors:
        return "failure: processes left", f"{shown}: {len(survivors)}"
    text = Path("err").read_text(errors="replace")
    if "Traceback" in text:
        return "failure: traceback", f"{shown}: {text[-600:]}"
    return "accepted", shown


def changed_files(contents: dict[str, bytes]) -> list[str]:
    """Names of the files that are missing or have other contents."""
    return [
        name
        for name, content in contents.items()
        if not Path(name).exists() or Path(name).read_bytes() != content
    ]


def finished_files() -> dict[str, bytes]:
    """Contents of the files in `out` that are finished work: stored runs of a comparison."""
    return {str(path): path.read_bytes() for path in Path().glob("out/runs/[!.]*.npz")}


def group_members(group: int, patience: float) -> list[int]:
    """Processes of a group, without zombies, that still exist after `patience` seconds."""
    until = time.monotonic() + patience
    while True:
        members = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = status.read_text().rpartition(")")[2].split()
                if int(fields[2]) == group and fields[0] != "Z":
                    members.append(int(status.parent.name))
        if not members or time.monotonic() > until:
            return members
        time.sleep(0.2)


PREPARE = {
    "commands": prepare_commands,
    "calls": prepare_calls,
    "files": prepare_files,
    "kills": prepare_kills,
}


# ---------------------------------------------------------------- driver


def fuzz(
    parts: Sequence[str], seed: int, seconds: float, say: Callable[[str], None] = print
) -> list[Outcome]:
    """Let the parts take turns for some seconds, and return all outcomes."""
    until = time.monotonic() + seconds
    children = [Child(part, seed) for part in parts]
    outcomes: list[Outcome] = []
    shown: Counter[tuple[str, str]] = Counter()
    try:
        while time.monotonic() < until:
            for child in children:
                for outcome in child.outcomes(SHARES[child.part], until):
                    outcomes.append(outcome)
                    if outcome.failed:
                        shown[outcome.part, outcome.kind] += 1
                        if shown[outcome.part, outcome.kind] <= 10:  # per kind; all are counted
                            say(f"{outcome.part}:{outcome.index} {outcome.kind}: {outcome.text}")
    finally:
        for child in children:
            child.close()
    return outcomes


def report(outcomes: Sequence[Outcome], seed: int) -> str:
    """Number of attempts per kind, with the command that repeats the first failure of a kind."""
    lines = []
    for part in dict.fromkeys(outcome.part for outcome in outcomes):
        of_part = [outcome for outcome in outcomes if outcome.part == part]
        lines.append(f"{part}: {len(of_part)} attempts")
        for kind, count in Counter(outcome.kind for outcome in of_part).most_common():
            first = next(outcome for outcome in of_part if outcome.kind == kind)
            again = f"; python -m benchmarks.fuzz --seed {seed} --replay {part}:{first.index}"
            lines.append(f"  {count:>7} {kind}{again if first.failed else ''}")
    return "\n".join(lines)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Try to break minirl.")
    parser.add_argument("--minutes", type=float, default=1.0, help="duration (default: 1)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--seed", type=int, default=0, help="seed of all attempts (default: 0)")
    parser.add_argument("--replay", metavar="PART:NUMBER", help="repeat one attempt")
    parser.add_argument("--child", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run_child(arguments.child, arguments.seed, arguments.first)
    if arguments.replay:
        part, _, number = arguments.replay.partition(":")
        signal.signal(signal.SIGALRM, _stop)
        kind, text = one_attempt(PREPARE[part](), part, arguments.seed, int(number))
        print(f"{kind}: {text}")
        return int(kind.startswith("failure"))
    outcomes = fuzz(arguments.parts, arguments.seed, 60 * arguments.minutes)
    print(report(outcomes, arguments.seed))
    return int(any(outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
