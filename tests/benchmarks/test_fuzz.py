"""A minute of the fuzzer, and faults made on purpose that it must find."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

import minirl
from benchmarks import fuzz, fuzz_calls
from minirl.support import serialization


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


ATTEMPTS = {"commands": 150, "calls": 400, "files": 2}


@pytest.mark.skipif(os.name != "posix", reason="needs pipes and limits of POSIX")
@pytest.mark.parametrize("part", ATTEMPTS)
def test_a_part_of_an_hour_finds_nothing(part):
    child = fuzz.Child(part, seed=0)
    try:
        outcomes = list(child.outcomes(ATTEMPTS[part], time.monotonic() + 120))
    finally:
        child.close()
    assert [outcome for outcome in outcomes if outcome.failed] == []
    assert len(outcomes) > ATTEMPTS[part] / 10  # on a machine that is busy


def test_the_number_of_an_attempt_decides_what_it_does():
    def command(index, seed=0):
        return fuzz.random_command(fuzz.generator(seed, "commands", index))

    assert command(3) == command(3) != command(3, seed=1)
    commands = [command(index) for index in range(500)]
    assert len(set(map(tuple, commands[:50]))) > 45
    for word in ("train", "compare", "evaluate", "watch", "rlhf", "--set", "--resume", "--beta"):
        assert any(word in words for words in commands)


def test_every_public_function_and_class_is_called():
    calls = fuzz_calls.Calls()
    assert calls.uncovered == {}
    for package in (minirl, minirl.rlhf):
        for name in package.__all__:
            path = f"{package.__name__}.{name}"
            without_arguments = ("Unclipped", "SGD", "LeaveOneOut", "GroupNormalized")
            excluded = path in fuzz_calls.EXCLUDED | fuzz_calls.RECORDS
            constant = not callable(getattr(package, name))
            assert path in calls.names or excluded or name in without_arguments or constant, path
    assert "minirl.Batch.rows" in calls.names
    for function in ("tabular.state_values", "sequences.kl", "lqr.optimal_gain"):
        assert function in calls.names


@pytest.mark.parametrize(
    ("status", "out", "err", "kind"),
    [
        (0, "return 3.0\n", "", "accepted"),
        (0, "mean return nan\n", "", "failure: nan"),
        (0, "", "x.py:3: RuntimeWarning: overflow\n", "failure: warning"),
        (1, "", "minirl: seed must be\n", "refused"),
        (1, "", "  0%|     | 0/4 [00:00<?, ?run/s]\rminirl: no\n", "refused"),
        (1, "", "minirl: seed must be\nand more\n", "failure: message is not one line"),
        (1, "", "", "failure: message is not one line"),
        (1, "", "Traceback (most recent call last):\n", "failure: traceback"),
        (2, "", "usage: ...\nerror: no such option\n", "refused"),
        (3, "", "minirl: seed must be\n", "failure: status 3"),
        (-9, "", "", "failure: status -9"),
        (130, "", "minirl: interrupted\n", "refused"),
    ],
)
def test_streams_are_judged(status, out, err, kind):
    assert fuzz.judge_streams(status, out, err) == kind


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (lambda arguments: 1 / 0, "failure: ZeroDivisionError"),
        (lambda arguments: Path("good.npz").write_bytes(b""), "failure: a file was changed"),
        (lambda arguments: Path("precious.txt").unlink(), "failure: a file was changed"),
        (lambda arguments: Path("hacked").touch(), "failure: code was executed"),
        (lambda arguments: print("nan: nan"), "failure: nan"),
        (lambda arguments: None, "accepted"),
    ],
)
def test_faults_of_the_command_line_are_found(fault, kind, monkeypatch):
    monkeypatch.setattr("minirl.__main__.run_evaluate", fault)
    assert fuzz.run_command(["evaluate", "good.npz"])[0] == kind


def test_files_that_are_not_checked_are_found(monkeypatch):
    def date_changed(whole, rng):
        return [("a date", whole[:10] + bytes([whole[10] ^ 1]) + whole[11:])]

    monkeypatch.setattr(fuzz, "damages", date_changed)
    for seed in range(4):  # policies and runs
        assert fuzz.damage_file(np.random.default_rng(seed))[0] == "refused"
    monkeypatch.setattr(serialization, "_digest", lambda content: b"0" * 64)
    for seed in range(4):
        kind, _ = fuzz.damage_file(np.random.default_rng(seed))
        assert kind == "failure: damage was not noticed"


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda count: 1 / 0, "failure: ZeroDivisionError"),
        (lambda count: count.missing, "failure: AttributeError"),
        (lambda count: {"score": [np.array([1.0, np.nan])]}, "failure: NaN"),
        (lambda count: np.zeros((2, 2)), "failure: shape"),
        (lambda count: np.zeros(2), "accepted"),
        (lambda count: minirl.LinearSchedule("x"), "failure: message names no argument"),
        (lambda count: serialization.prepare_folder(""), "failure: message names no argument"),
        (lambda count: minirl.LinearSchedule(start=0.5), "accepted"),
    ],
)
def test_faults_of_calls_are_found(function, kind):
    calls = object.__new__(fuzz_calls.Calls)
    calls._right_results = {"f": (False, (2,) if kind != "accepted" else None)}
    if kind == "accepted":
        calls._right_results = {"f": (False, fuzz_calls.shape_of(function(3)))}
    assert calls._judge("f", function, {"count": 3}, "a column", False)[0] == kind


def test_an_attempt_that_takes_too_long_is_stopped(monkeypatch):
    signal = pytest.importorskip("signal")
    monkeypatch.setattr(fuzz, "TIME_LIMIT", {"calls": 0.1})
    before = signal.signal(signal.SIGALRM, fuzz._stop)
    try:
        for may_be_long, kind in ((False, "failure: time"), (True, "accepted")):

            def prepared(rng, may_be_long=may_be_long):
                return fuzz.Attempt("sleep", lambda: time.sleep(30), may_be_long)

            assert fuzz.one_attempt(prepared, "calls", 0, 0) == (kind, "sleep")
    finally:
        signal.signal(signal.SIGALRM, before)


def test_the_report_says_how_to_repeat_a_failure():
    kinds = ["refused", "failure: NaN", "failure: NaN"]
    outcomes = [fuzz.Outcome("calls", index, kind, "") for index, kind in enumerate(kinds, 1)]
    text = fuzz.report(outcomes, seed=7)
    assert "calls: 3 attempts" in text
    assert "2 failure: NaN; python -m benchmarks.fuzz --seed 7 --replay calls:2" in text
