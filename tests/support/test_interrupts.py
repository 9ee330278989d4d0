"""Ctrl-C, SIGTERM and SIGKILL at any moment: how a command ends, what it keeps, who survives it."""

import contextlib
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from commands import QUICK, ROOT, SAVED, lines_of, names_in

from minirl.support.interrupts import Interrupted, exit_status, hold_interrupts, raise_interrupts
from minirl.support.serialization import load_policy
from minirl.training import TrainingStopped

TRAIN = ["train", "CartPole-v1", "--total-steps", "100000000", *QUICK]
COMPARE = ["compare", "CartPole-v1", "--algorithms", "trpo", "ppo", "--total-steps", "2000"]
PATIENCE = 60  # seconds; a busy machine needs more than the second or two that all this takes

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and process groups of POSIX")


def heed_signals():
    """Children of a background job would ignore SIGINT, and those of nohup SIGHUP."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _signals_are_heeded():
    """A job in the background ignores SIGINT, and so would the tests of this process."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


def poll(condition, still=lambda: None):
    """Wait until `condition()`; `still()` must hold meanwhile, and patience ends."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        still()
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Command:
    """A command in a process group of its own, with its output in files."""

    def __init__(self, folder, words, **variables):
        self.out, self.err = folder / "stdout", folder / "stderr"
        with open(self.out, "w") as out, open(self.err, "w") as err:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, words)],
                cwd=ROOT,
                stdout=out,
                stderr=err,
                env={**os.environ, **variables},
                start_new_session=True,
                preexec_fn=heed_signals,
            )
        self.group = self.process.pid

    def wait_for(self, condition):
        def still():
            assert self.process.poll() is None, self.err.read_text()

        poll(condition, still)

    def shows_progress(self):
        return self.err.read_text().count("mean_return") > 1

    def status(self):
        return self.process.wait(timeout=PATIENCE)

    def lines(self):
        return lines_of(self.err.read_text())

    def require_no_process_left(self):
        """Its workers and their resource tracker, too, must end soon after it."""

        def gone():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.group, 0)
                return False
            return True

        poll(gone)


@pytest.fixture
def start(tmp_path):
    """Start `python -m minirl` with these words; what is left of it is killed after the test."""
    commands = []

    def start_command(*words, module=True, **variables):
        words = ["-m", "minirl", *words] if module else words
        commands.append(Command(tmp_path, words, **variables))
        return commands[-1]

    yield start_command
    for command in commands:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(command.group, signal.SIGKILL)
        command.process.wait()


def test_interrupts_raise_one_at_a_time():
    with raise_interrupts():
        with pytest.raises(Interrupted) as caught:
            signal.raise_signal(signal.SIGTERM)
        assert exit_status(caught.value) == 143
        signal.raise_signal(signal.SIGINT)  # the first one is still being handled
        signal.raise_signal(signal.SIGTERM)
        del caught
        gc.collect()
        with pytest.raises(Interrupted) as caught:  # it has been handled
            signal.raise_signal(signal.SIGINT)
        assert exit_status(caught.value) == 130


def test_an_interrupt_that_is_swallowed_does_not_hide_the_next_one():
    class Cycle:
        pass

    with raise_interrupts():
        for _ in range(3):
            cycle = Cycle()
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt as error:
                cycle.error, cycle.itself = error, cycle
            assert hasattr(cycle, "error")
            del cycle


def test_handlers_are_restored_and_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        others = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        with raise_interrupts(), hold_interrupts():
            assert signal.getsignal(signal.SIGINT) is not others[0]
            signal.raise_signal(signal.SIGHUP)
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == others
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_held_interrupts_arrive_at_the_end_of_the_block():
    reached = []

    def work(number, error=None):
        with hold_interrupts():
            os.kill(os.getpid(), number)
            signal.raise_signal(number)
            reached.append("the end")
            if error:
                raise error

    with pytest.raises(KeyboardInterrupt):
        work(signal.SIGINT)
    with raise_interrupts(), pytest.raises(Interrupted, match="SIGTERM"):
        work(signal.SIGTERM)
    with pytest.raises(OSError, match="disk full"):  # which the interrupt does not hide
        work(signal.SIGINT, OSError("disk full"))
    assert reached == ["the end"] * 3
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_other_threads_leave_signals_alone():
    seen = []

    def look():
        with raise_interrupts(), hold_interrupts():
            seen.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]


def test_children_started_while_interrupts_wait_ignore_ctrl_c():
    program = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    with hold_interrupts():
        found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout == "True\n"


def test_exit_status_of_errors():
    stopped, ended = TrainingStopped("stopped", None), TrainingStopped("stopped", None)
    ended.__cause__ = Interrupted(signal.SIGTERM)
    errors = ValueError("x"), KeyboardInterrupt(), stopped, ended
    assert [exit_status(error) for error in errors] == [1, 130, 1, 143]


INTERRUPT_AT_IMPORT = """
import os, signal, sys

imports = 0

def interrupt(event, arguments):
    global imports
    if event == "import" and "minirl.advantages" in sys.modules:
        imports += 1
        if imports == {moment}:
            os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(interrupt)
"""


@pytest.mark.parametrize("moment", [1, 2, 5, 10, 20, 40, 80, 120, 160, 200, 250, 300])
def test_ctrl_c_during_start_up_is_one_line(moment, start, tmp_path):
    """At the moment of an import, wherever it comes from: C code turns it into an ImportError."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT_AT_IMPORT.format(moment=moment))
    folder = tmp_path / "results"
    short = ["train", "CartPole-v1", "--total-steps", "100"]
    command = start(*short, "--out", folder, PYTHONPATH=str(tmp_path))
    assert command.status() == 130
    assert command.lines() == ["minirl: interrupted"]
    assert command.out.read_text() == ""
    assert not folder.exists()


INTERRUPT_WHILE_SAVING = """
import os, signal, sys

def interrupt(event, arguments):
    if event == "os.rename" and "experiment.json" not in str(arguments[1]):
        os.killpg(0, signal.SIGINT)

sys.addaudithook(interrupt)
"""


@pytest.mark.parametrize("saving", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_training_and_keeps_what_was_learned(number, saving, start, tmp_path):
    """Also if a second one comes `saving`."""
    if saving:
        (tmp_path / "sitecustomize.py").write_text(INTERRUPT_WHILE_SAVING)
    folder = tmp_path / "results"
    command = start(*TRAIN, "--out", folder, PYTHONPATH=str(tmp_path))
    command.wait_for(command.shows_progress)
    (os.kill if saving else os.killpg)(command.group, number)
    assert command.status() == 128 + number
    (line,) = command.lines()
    assert re.match(r"minirl: training stopped after \d+ environment steps: interrupted", line)
    assert command.out.read_text() == ""
    assert names_in(folder) == SAVED
    load_policy(folder / "policy.npz")
    assert len((folder / "history.csv").read_text().splitlines()) > 2


def test_ctrl_c_while_the_finished_policy_is_saved_loses_nothing(start, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT_WHILE_SAVING)
    folder = tmp_path / "results"
    words = [*TRAIN, "--total-steps", 200, "--out", folder]  # the last one is used
    command = start(*words, PYTHONPATH=str(tmp_path))
    assert command.status() == 130
    assert command.lines() == ["minirl: interrupted"]
    assert names_in(folder) == SAVED
    load_policy(folder / "policy.npz")


def children_of(process):
    """Whether it has child processes: of Linux's /proc, which tests on other systems do without."""
    path = Path(f"/proc/{process}/task/{process}/children")
    return path.read_text().split() if path.exists() else ["unknown"]


# as soon as the folder is claimed; workers are starting; a run is finished
MOMENTS = {
    "claimed": lambda command, runs: runs.exists(),
    "starting": lambda command, runs: runs.exists() and len(children_of(command.group)) > 0,
    "working": lambda command, runs: len(list(runs.glob("*.npz"))) > 1,
}


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("runs/*.npz")}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_survives_a_comparison_that_is_killed(number, moment, start, tmp_path):
    folder = tmp_path / "results"
    command = start(*COMPARE, "--seeds", 50, "--workers", 2, "--out", folder)
    command.wait_for(lambda: MOMENTS[moment](command, folder / "runs"))
    stored = times(folder)
    # Ctrl-C goes to the whole group, as from a terminal; workers must notice other signals
    (os.killpg if number == signal.SIGINT else os.kill)(command.group, number)
    if number == signal.SIGKILL:
        assert command.status() == -signal.SIGKILL
    else:
        assert command.status() == 128 + number
        kept = "finished runs are kept, and the same command continues from them"
        assert command.lines() == [f"minirl: interrupted; {kept}"]
    command.require_no_process_left()
    found = times(folder)
    assert stored.items() <= found.items()
    for path in found:
        with np.load(path) as file:
            assert file["environment_steps"][-1] >= 2000
    if not found and number != signal.SIGKILL:
        assert not (folder / "experiment.json").exists()  # another command may use the folder
    if moment == "working" and number == signal.SIGINT:  # the same command continues
        assert start(*COMPARE, "--seeds", 1, "--workers", 1, "--out", folder).status() == 0
        assert found.items() <= times(folder).items()
        assert {"trpo-seed0.npz", "ppo-seed0.npz"} <= set(names_in(folder / "runs"))
        assert (folder / "summary.json").exists()


PARTIAL = """
import os, struct, sys, time
from dataclasses import dataclass
from pathlib import Path

import minirl


@dataclass(frozen=True)
class Partial:
    'In a worker, sends the first bytes of a long message instead of learning.'

    def init(self, policy):
        return minirl.PPO().init(policy)

    def update(self, state, batch, rng):
        frame = sys._getframe()
        while frame.f_code.co_name != "_process_worker":
            frame = frame.f_back
        pipe = frame.f_locals["result_queue"]._writer
        os.write(pipe.fileno(), struct.pack("!i", 10**6) + b"x")
        Path(__file__).with_name("sent").touch()
        time.sleep(1000)


if __name__ == "__main__":
    minirl.compare("CartPole-v1", {"one": Partial()}, total_steps=100, seeds=2)
"""


def test_ctrl_c_does_not_wait_for_the_rest_of_a_result(start, tmp_path):
    script = tmp_path / "partial.py"
    script.write_text(PARTIAL)
    command = start(script, module=False, PYTHONPATH=str(ROOT))
    command.wait_for((tmp_path / "sent").exists)
    os.killpg(command.group, signal.SIGINT)  # Ctrl-C, as a terminal sends it
    assert command.status() != 0
    assert "KeyboardInterrupt" in command.err.read_text()
    command.require_no_process_left()
