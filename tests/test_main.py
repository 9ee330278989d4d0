import csv
import importlib
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from commands import QUICK, ROOT, SAVED, lines_of, names_in
from PIL import Image

from minirl.__main__ import main
from minirl.distributions import Categorical
from minirl.networks import MLP, Table
from minirl.policy import Policy
from minirl.support.serialization import load_policy, save_policy


@pytest.fixture
def run(capsys):
    """Run a command in this process: exit status, stdout, lines on stderr."""

    def run_command(*argv):
        status = main([str(word) for word in argv])
        captured = capsys.readouterr()
        return status, captured.out, lines_of(captured.err)

    return run_command


@pytest.fixture
def fails(run):
    """Run a command that must fail: its one line on stderr."""

    def run_command(*argv, status=1):
        found, out, lines = run(*argv)
        assert found == status
        assert out == ""
        assert len(lines) == 1, lines
        assert lines[0].startswith("minirl: ")
        return lines[0]

    return run_command


@pytest.fixture
def register(monkeypatch):
    """Register the helpers' environment under a name, for one test."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    names = []

    def register_one(name, **kwargs):
        steady = importlib.import_module("environments").Steady
        gymnasium.register(name, steady, kwargs=kwargs)
        names.append(name)
        return name

    yield register_one
    for name in names:
        del gymnasium.registry[name]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a short training run."""
    folder = tmp_path_factory.mktemp("trained") / "results"
    command = ["train", "CartPole-v1", "--total-steps", "300", "--seed", "4", "--out", str(folder)]
    assert main([*command, *QUICK]) == 0
    return folder


# train


def test_train_leaves_policy_history_and_curve(run, tmp_path):
    command = ["train", "CartPole-v1", "--algorithm", "trpo", "--total-steps", 300, "--seed", 3]
    more = ["--set", " max_kl = 0.02 ", *QUICK, "--out", tmp_path / "results"]
    status, out, err = run(*command, *more)
    assert (status, err) == (0, [])
    assert names_in(tmp_path / "results") == SAVED
    for name in ("policy.npz", "history.csv", "curve.png"):
        assert name in out
    assert re.search(r"mean return .*: \d+\.\d", out)
    _, description = load_policy(tmp_path / "results" / "policy.npz")
    assert description["algorithm"]["type"] == "TRPO"
    assert description["algorithm"]["max_kl"] == 0.02
    assert description["settings"]["num_envs"] == 2
    assert (description["seed"], description["total_steps"]) == (3, 300)
    with open(tmp_path / "results" / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert 300 <= float(rows[-1]["environment_steps"]) <= 364
    with Image.open(tmp_path / "results" / "curve.png") as image:
        assert image.format == "PNG"


def files_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_finished_run_is_not_trained_again(run, trained):
    before = files_in(trained)
    command = ["train", "CartPole-v1", "--total-steps", "300", "--seed", "4", *QUICK]
    status, out, err = run(*command, "--out", trained)
    assert (status, err) == (0, [])
    assert re.search(
        r"already contains this run, finished after 3\d\d environment steps; .*delete", out
    )
    assert files_in(trained) == before


def test_a_run_that_stops_at_a_return_and_keeps_its_best_policy(run, tmp_path):
    command = ["train", "CartPole-v1", "--total-steps", 50_000, "--num-envs", 4]
    more = ["--stop-at", 21.5, "--evaluate-every", 1000, "--out", tmp_path]
    status, out, err = run(*command, *more)
    assert (status, err) == (0, [])
    assert re.search(r"stopped after [\d,]+ environment steps, as requested", out)
    assert re.search(r"best evaluation during training: \d+\.\d\d after [\d,]+ environment", out)
    assert "best_policy.npz" in out
    _, description = load_policy(tmp_path / "policy.npz")
    _, best = load_policy(tmp_path / "best_policy.npz")
    assert description["partial"] is False
    assert description["stop"] == {"type": "ReturnReached", "target": 21.5}
    assert best["environment_steps"] <= description["environment_steps"] < 50_000
    assert run("evaluate", tmp_path / "best_policy.npz", "--episodes", 2)[0] == 0


def test_training_goes_on_from_a_checkpoint(run, fails, monkeypatch, tmp_path):
    command = ["train", "CartPole-v1", "--total-steps", 600, *QUICK]
    saving = [*command, "--checkpoint-every", 100, "--out", tmp_path / "resumed"]
    assert run(*command, "--out", tmp_path / "whole")[0] == 0

    from minirl.support.history import History

    record = History.record

    def stop_later(self, *arguments):
        record(self, *arguments)
        if self.environment_steps > 300:
            raise MemoryError("too much")

    with monkeypatch.context() as patch:
        patch.setattr(History, "record", stop_later)
        status, _, lines = run(*saving)
    assert status == 1
    assert "MemoryError: too much" in lines[0]
    assert "marked as partial" in lines[0]
    assert re.search(r"checkpoint.pkl.*--resume", lines[0])
    line = fails(*saving)
    assert re.search(r"contains this run after 2\d\d environment steps; add --resume", line)
    _, description = load_policy(tmp_path / "resumed" / "policy.npz")
    assert (description["partial"], description["environment_steps"] > 300) == (True, True)
    _, out, _ = run("evaluate", tmp_path / "resumed" / "policy.npz", "--episodes", 1)
    assert "stopped early" in out

    # Killed after the policy was saved and before the rest was: --resume saves the rest.
    from minirl import __main__

    def killed(result, folder):
        save_policy(result.policy, folder / "policy.npz", result.description)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(__main__, "save_training", killed)
        assert run(*saving, "--resume")[0] == 130
    (tmp_path / "resumed" / "curve.png").unlink()
    assert run(*saving, "--resume")[0] == 0
    assert sorted(files_in(tmp_path / "resumed")) == sorted(files_in(tmp_path / "whole"))
    one, other = (load_policy(tmp_path / name / "policy.npz") for name in ("whole", "resumed"))
    assert np.array_equal(one[0].parameters, other[0].parameters)
    assert one[1] == other[1]


def test_training_without_a_finished_episode_has_no_mean_to_report(run, tmp_path):
    status, out, err = run("train", "Pendulum-v1", "--total-steps", 1, *QUICK, "--out", tmp_path)
    assert (status, err) == (0, [])
    assert "nan" not in out


# evaluate and watch


def test_evaluate_prints_mean_and_interval_which_one_episode_does_not_have(run, trained):
    status, out, err = run("evaluate", trained / "policy.npz", "--episodes", 10)
    assert (status, err) == (0, [])
    mean, low, high = map(
        float, re.search(r"mean return ([\d.]+), .*\[([\d.]+), ([\d.]+)\]", out).groups()
    )
    assert low <= mean <= high
    assert "10 greedy episodes" in out
    status, out, _ = run("evaluate", trained / "policy.npz", "--episodes", 1)
    assert status == 0
    assert "nan" not in out


def test_evaluate_samples_and_seeds_as_asked(run, tmp_path):
    # logits 0 and 0.01: greedy always pushes right and soon falls, sampled it takes longer
    policy = Policy(MLP((4, 2)), Categorical, np.array([0.0] * 9 + [0.01], np.float32))
    save_policy(policy, tmp_path / "policy.npz", {"env": "CartPole-v1"})
    means = []
    for options in ([], ["--sampled"], ["--sampled", "--seed", 5]):
        out = run("evaluate", tmp_path / "policy.npz", "--episodes", 20, *options)[1]
        assert ("20 sampled episodes" in out) == ("--sampled" in options)
        means.append(float(re.search(r"mean return ([\d.]+)", out)[1]))
    greedy, sampled, other_seed = means
    assert greedy < 11
    assert min(sampled, other_seed) > 14
    assert sampled != other_seed


def test_evaluate_in_another_environment(run, trained, register):
    name = register("FourNumbers-v0")
    policy = Policy(MLP((1, 2)), Categorical, np.array([0, 0, 0, 1], np.float32))
    path = trained.parent / "steady.npz"
    save_policy(policy, path, {"env": "CartPole-v1"})
    status, out, _ = run("evaluate", path, "--env", name, "--episodes", 3)
    assert status == 0
    assert "mean return 5.00" in out


def test_evaluate_says_how_many_episodes_were_cut(run, tmp_path, register):
    name = register("Endless-v0", length=0)
    policy = Policy(MLP((1, 2)), Categorical, np.array([0, 0, 0, 1], np.float32))
    save_policy(policy, tmp_path / "policy.npz", {"env": name})
    for more, steps in (((), 1000), (("--max-steps", 1200), 1200)):
        status, out, _ = run("evaluate", tmp_path / "policy.npz", "--episodes", 2, *more)
        assert status == 0
        assert f"2 episodes had not ended after {steps} steps and were cut; --max-steps" in out


def test_watch_saves_a_gif(run, trained, tmp_path):
    status, out, err = run("watch", trained / "policy.npz", "--out", tmp_path / "agent.gif")
    assert (status, err) == (0, [])
    assert re.match(r"return \d+\.\d; .*agent\.gif", out)
    with Image.open(tmp_path / "agent.gif") as image:
        assert (image.format, image.n_frames > 5) == ("GIF", True)


# compare


def test_compare_prints_the_table_and_leaves_the_files(run, tmp_path):
    command = ["compare", "minirl/Chain-v0", "--algorithms", "ppo", "trpo", "--seeds", 2]
    command += ["--total-steps", 500, "--workers", 1, "--out", tmp_path / "results"]
    status, out, err = run(*command)
    assert (status, err) == (0, [])
    for word in ("ppo", "trpo", "curves.png", "runs.csv", "summary.json"):
        assert word in out
    summary = json.loads((tmp_path / "results" / "summary.json").read_text())
    assert list(summary["algorithms"]) == ["ppo", "trpo"]
    assert len(summary["algorithms"]["ppo"]["cpu_seconds"]) == 2
    assert run(*command)[1] == out  # resumed: even the times are those of the stored runs


# What is wrong with the command


def test_no_command_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


TRAIN = ("train", "CartPole-v1", "--total-steps", "64")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("train", "Foo-v1"), "'Foo-v1'"),
        (("train", "nowhere_to_be_found:Env-v0"), "nowhere_to_be_found"),
        (("train", "not an id!"), "'not an id!'"),
        ((*TRAIN, "--algorithm", "a2c"), "'a2c' is unknown.*ppo"),
        ((*TRAIN, "--set", "leraning_rate=1"), "'leraning_rate' is unknown.*learning_rate"),
        ((*TRAIN, "--set", "learning_rate"), "NAME=VALUE"),
        ((*TRAIN, "--set", "learning_rate=nan"), "nan"),
        ((*TRAIN, "--set", "learning_rate=1e999"), "learning_rate.*inf"),
        ((*TRAIN, "--set", "hidden_sizes=64"), "hidden_sizes.*64"),
        ((*TRAIN, "--set", "num_envs=2.0"), "num_envs.*2.0"),
        ((*TRAIN, "--set", "advantages=__import__('os')"), "__import__.*not understood"),
        ((*TRAIN, "--num-envs", "100000000"), "num_envs must be at most 100,000"),
        ((*TRAIN, "--set", "rollout_steps=100000000"), "rollout must fit into memory"),
        ((*TRAIN, "--set", f"epochs={10**26}"), "epochs must be at most 100,000"),
        ((*TRAIN, "--set", "optimizer=CriticFit()"), r"SGD\(\) and Adam\(\).*got a CriticFit"),
        ((*TRAIN, "--set", "learning_rate=[1]"), "learning_rate must be .*got a list"),
        ((*TRAIN, "--set", "objective=Clipped('a')"), "epsilon must be .*got 'a'"),
        ((*TRAIN, "--set", "learning_rate=" + 20_000 * "-" + "1"), "learning_rate|value '---"),
        ((*TRAIN, "--algorithm", "trpo", "--set", "line_search_shrink='0.7'"), "_shrink.*'0.7'"),
        ((*TRAIN, "--algorithm", "trpo", "--set", f"cg_iterations={10**9}"), "cg_iterations.*most"),
        (("train", "./my_env:My-v0"), "name of a Python module.*got './my_env'"),
        (("train", ":CartPole-v1"), "name of a Python module.*got ''"),
        (("train", "CartPole-v1", "--total-steps", str(10**20)), "total_steps must be at most"),
        ((*TRAIN, "--seed", "-1"), "seed.*-1"),
        (("train", "CartPole-v1", "--total-steps", "0"), "total_steps.*0"),
        (("train", "FrozenLake-v1", "--set", "normalize_observations=True"), "normalize_obs"),
        (("compare", "Foo-v1"), "'Foo-v1'"),
        (("compare", "CartPole-v1", "--algorithms", "a2c"), "'a2c' is unknown"),
        (("compare", "CartPole-v1", "--seeds", "0"), "seeds.*0"),
        (("compare", "CartPole-v1", "--workers", "0"), "workers.*0"),
    ],
)
def test_a_bad_argument_is_one_line_and_does_not_claim_the_folder(command, words, fails, tmp_path):
    assert re.search(words, fails(*command, "--out", tmp_path / "results"))
    # otherwise the command as it was meant would find "another experiment" there
    assert not (tmp_path / "results" / "experiment.json").exists()


def test_an_unversioned_environment_is_understood_or_refused_at_once(tmp_path):
    # Gymnasium warns here; that line is its own
    command = ["compare", "CartPole", "--algorithms", "trpo", "--seeds", "1", "--total-steps", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "minirl", *command, "--out", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    if done.returncode == 0:
        assert (tmp_path / "summary.json").exists()
    else:
        assert done.returncode == 1
        assert "CartPole" in lines_of(done.stderr)[-1]


class Odd(gymnasium.Env):
    """Spaces that minirl does not support, whose text takes several lines."""

    observation_space = gymnasium.spaces.Box(
        np.arange(40.0).reshape(8, 5), 100 + np.arange(40.0).reshape(8, 5), dtype=np.float64
    )
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.low, {}


def test_unsupported_spaces_are_one_line(fails, tmp_path):
    gymnasium.register("Odd-v0", Odd)
    try:
        line = fails("train", "Odd-v0", "--total-steps", 64, "--out", tmp_path / "results")
    finally:
        del gymnasium.registry["Odd-v0"]
    assert "observation space" in line
    assert "Box vectors" in line  # what would be right


def test_a_folder_that_cannot_be_written(fails, tmp_path):
    (tmp_path / "file").write_text("")
    for command in ("train", "compare"):
        line = fails(command, "CartPole-v1", "--out", tmp_path / "file" / "results")
        assert "can't be written" in line


def test_a_folder_that_holds_another_experiment(fails, trained):
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    line = fails(
        "train", "CartPole-v1", "--total-steps", 301, "--seed", 4, *QUICK, "--out", trained
    )
    assert "total_steps is 300 there, 301 here" in line
    line = fails("compare", "CartPole-v1", "--total-steps", 300, "--out", trained)
    assert "another experiment" in line
    assert {path.name: path.read_bytes() for path in trained.iterdir()} == before


@pytest.mark.parametrize("command", ["evaluate", "watch"])
@pytest.mark.parametrize(
    "content", [None, b"", b"text\n", b"PK\x03\x04 truncated", b"\x93NUMPY\x01\x00"]
)
def test_a_file_that_is_no_policy_is_one_line(command, content, fails, tmp_path):
    path = tmp_path / "policy.npz"
    if content is not None:
        path.write_bytes(content)
    out = ["--out", tmp_path / "agent.gif"] if command == "watch" else []
    line = fails(command, path, *out)
    assert str(path) in line
    assert not (tmp_path / "agent.gif").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--episodes", "0"), "episodes.*0"),
        (("--seed", "-1"), "(?i)seed.*-1"),
        (("--env", "Foo-v1"), "'Foo-v1'"),
        (("--env", "Pendulum-v1"), "space"),
        (("--env", "FrozenLake-v1"), "space"),
    ],
)
def test_evaluate_refuses_in_one_line(arguments, words, fails, trained):
    assert re.search(words, fails("evaluate", trained / "policy.npz", *arguments))


def test_paths_that_do_not_exist(fails, trained, tmp_path):
    assert "path must name a file" in fails("evaluate", "")
    line = fails("watch", trained / "policy.npz", "--out", tmp_path / "missing" / "agent.gif")
    assert "missing" in line


def test_memory_that_is_not_enough_is_one_line(fails, monkeypatch, tmp_path):
    def fill(*arguments, **settings):
        raise MemoryError("Unable to allocate 8. EiB")

    monkeypatch.setattr("minirl.__main__.compare", fill)
    line = fails("compare", "CartPole-v1", "--out", tmp_path)
    assert "there is not enough memory (Unable to allocate 8. EiB)" in line


def test_a_policy_whose_environment_is_not_known_asks_for_it(fails, tmp_path):
    policy = Policy(Table(16, 4), Categorical, np.zeros(64))
    save_policy(policy, tmp_path / "policy.npz", {})  # from Python, with another description
    assert "--env" in fails("evaluate", tmp_path / "policy.npz")


# An environment or a policy that breaks underway


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("broken", ["observation", "reward"])
def test_a_number_that_is_not_finite_stops_training_and_keeps_what_was_learned(
    broken, value, fails, run, register, tmp_path
):
    name = register("Broken-v0", broken=broken, bad_step=150, bad_value=value)
    natural = ["--algorithm", "natural-gradient", *QUICK]  # whose steps are not annealed
    line = fails("train", name, "--total-steps", 1000, *natural, "--out", tmp_path)
    # step 150 of an environment whose episodes last 5 steps and a reset row: 150 + 29 rows, the
    # last of which is number 178 counting from 0
    assert re.search(rf"environment 0 .*non-finite {broken} .*{value}.* step 178\b", line)
    assert names_in(tmp_path) == SAVED
    with open(tmp_path / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5  # whole rollouts of 32 rows before row 178
    policy, description = load_policy(tmp_path / "policy.npz")
    assert np.isfinite(policy.parameters).all()
    assert description["env"] == name
    # it is the policy after those five updates
    name, short = register("Whole-v0"), tmp_path / "short"
    steps = int(float(rows[-1]["environment_steps"]))
    assert run("train", name, "--total-steps", steps, *natural, "--out", short)[0] == 0
    np.testing.assert_array_equal(
        policy.parameters, load_policy(short / "policy.npz")[0].parameters
    )


def test_a_number_that_is_not_finite_in_a_comparison(fails, register, tmp_path):
    name = register("Broken-v0", broken="reward", bad_step=30)
    command = ["compare", name, "--algorithms", "trpo", "--seeds", 1, "--total-steps", 64]
    line = fails(*command, "--workers", 1, "--out", tmp_path)
    assert "non-finite reward" in line
    assert "trpo" in line
    assert "seed 0" in line


def test_learning_that_diverges_is_one_line(tmp_path):
    """In a process of its own, where NumPy's warnings would be lines on stderr."""
    words = ["train", "CartPole-v1", "--total-steps", "500", "--set", "learning_rate=1e38", *QUICK]
    command = [sys.executable, "-m", "minirl", *words, "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = lines_of(done.stderr)
    assert re.match(r"minirl: training stopped .*parameters became non-finite", line)
    load_policy(tmp_path / "policy.npz")


def test_a_warning_is_one_line_without_a_place_in_the_code(run, monkeypatch):
    def warn(arguments):
        warnings.warn("\x1b[33mthe policy\nhas collapsed\x1b[0m", RuntimeWarning, stacklevel=1)

    monkeypatch.setattr("minirl.__main__.run_watch", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        status, _, lines = run("watch", "policy.npz", "--out", "agent.gif")
    assert status == 0
    assert lines == ["minirl: warning: the policy has collapsed"]
