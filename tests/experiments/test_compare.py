import csv
import functools
import json
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from dataclasses import dataclass
from pathlib import Path

import environments
import gymnasium
import numpy as np
import pytest
from PIL import Image

import minirl
from minirl.algorithms import PPO, TRPO, PolicyGradient
from minirl.experiments import statistics
from minirl.experiments.compare import WorkItem, _score_text, compare, footnote, run_seed
from minirl.experiments.jobs import Failure
from minirl.settings import Settings
from minirl.support.serialization import load_arrays, save_arrays
from minirl.training import TrainingStopped

SMALL = Settings(num_envs=2, rollout_steps=64, hidden_sizes=(4,))
TWO = {"policy-gradient": PolicyGradient(), "ppo": PPO(epochs=2)}


@pytest.fixture
def trained(monkeypatch):
    """(name, seed) of every run that is trained in this process, in order."""
    runs = []

    def spy(item):
        runs.append((item.name, item.seed))
        return run_seed(item)

    monkeypatch.setattr("minirl.experiments.compare.run_seed", spy)
    return runs


def small(algorithms=TWO, env="CartPole-v1", **arguments):
    given = {
        "total_steps": 300,
        "seeds": 2,
        "settings": SMALL,
        "evaluation_episodes": 3,
        "workers": 1,
        **arguments,
    }
    return compare(env, algorithms, **given)


def strict(text):
    """JSON as others read it: Python's NaN and Infinity are no JSON."""

    def refuse(constant):
        raise AssertionError(f"{constant} in JSON")

    return json.loads(text, parse_constant=refuse)


def timeless(summary):
    """A summary without the two fields that may differ between two equal comparisons."""
    summary = json.loads(json.dumps(summary))
    del summary["versions"]
    for entry in summary["algorithms"].values():
        del entry["cpu_seconds"]
    return summary


def rows_of(path, without=()):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: row[key] for key in row.keys() - without} for row in rows]


def stored(folder):
    return sorted(path.name for path in (folder / "runs").iterdir())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted comparison and its folder."""
    folder = tmp_path_factory.mktemp("finished") / "results"
    return small(seeds=[3, 1], out=folder), folder


def test_the_folder(finished):
    _, folder = finished
    files = ["curves.png", "experiment.json", "runs", "runs.csv", "summary.json"]
    assert sorted(path.name for path in folder.iterdir()) == files
    assert stored(folder) == [f"{name}-seed{seed}.npz" for name in TWO for seed in (1, 3)]
    with Image.open(folder / "curves.png") as image:
        assert image.size[0] > image.size[1] > 300


def test_summary_json_has_the_promised_schema(finished):
    comparison, folder = finished
    summary = strict((folder / "summary.json").read_text())
    assert summary == comparison.summary
    assert " ".join(summary) == "env total_steps algorithms comparisons settings versions"
    assert (summary["env"], summary["total_steps"]) == ("CartPole-v1", 300)
    assert list(summary["algorithms"]) == ["policy-gradient", "ppo"]
    for entry in summary["algorithms"].values():
        lists = {"steps_to_threshold", "cut_episodes", "cpu_seconds", "gradient_equivalents"}
        assert set(entry) == {"final_training_return", "evaluation_return", *lists}
        for score in ("final_training_return", "evaluation_return"):
            assert set(entry[score]) == {"iqm", "ci95", "per_seed"}
            low, high = entry[score]["ci95"]
            assert low <= entry[score]["iqm"] <= high
            assert len(entry[score]["per_seed"]) == 2
        assert entry["steps_to_threshold"] == [None, None]
        assert entry["cut_episodes"] == [0, 0]
        assert len(entry["cpu_seconds"]) == len(entry["gradient_equivalents"]) == 2
        assert min(entry["cpu_seconds"] + entry["gradient_equivalents"]) > 0
    metrics = [pair["metric"] for pair in summary["comparisons"]]
    assert metrics == ["final_training_return", "evaluation_return"]
    for pair in summary["comparisons"]:
        assert (pair["first"], pair["second"]) == ("policy-gradient", "ppo")
        assert 0 <= pair["probability_of_improvement"] <= 1
        assert len(pair["probability_interval"]) == len(pair["difference_interval"]) == 2
        assert isinstance(pair["distinguishable"], bool)
        assert "policy-gradient" in pair["text"]
    assert summary["settings"]["algorithms"]["ppo"]["algorithm"]["epochs"] == 2
    assert summary["settings"]["algorithms"]["ppo"]["settings"]["num_envs"] == 2
    assert summary["settings"]["evaluation_episodes"] == 3
    assert summary["versions"]["numpy"] == np.__version__


def test_the_numbers_are_those_of_the_runs(finished):
    comparison, _ = finished
    for name, seeds in comparison.runs.items():
        entry = comparison.summary["algorithms"][name]
        for score in ("final_training_return", "evaluation_return"):
            values = [getattr(run, score) for run in seeds.values()]
            assert entry[score]["per_seed"] == values
            assert entry[score]["iqm"] == pytest.approx(np.mean(values))  # of two seeds
        for column in ("cpu_seconds", "gradient_equivalents"):
            assert entry[column] == [run.columns[column][-1] for run in seeds.values()]
        assert comparison.summary["settings"]["seeds"] == list(seeds) == [3, 1]
    first, second = (
        np.array([run.evaluation_return for run in comparison.runs[name].values()]) for name in TWO
    )
    pair = comparison.summary["comparisons"][1]
    improvement = statistics.probability_of_improvement(first, second)
    assert pair["probability_of_improvement"] == improvement
    assert pair["iqm_difference"] == pytest.approx(first.mean() - second.mean())


def test_runs_csv_holds_every_update_of_every_run(finished):
    comparison, folder = finished
    rows = rows_of(folder / "runs.csv")
    assert (folder / "runs.csv").read_text().startswith("algorithm,seed,")
    for name, seeds in comparison.runs.items():
        for seed, run in seeds.items():
            mine = [row for row in rows if (row["algorithm"], row["seed"]) == (name, str(seed))]
            for column, values in run.columns.items():
                read = [float(row[column] or "nan") for row in mine]
                np.testing.assert_allclose(read, values, rtol=1e-9)
    assert len(rows) == sum(
        len(run.columns["kl"]) for seeds in comparison.runs.values() for run in seeds.values()
    )
    assert "nan" not in (folder / "runs.csv").read_text()


def test_the_table_names_algorithms_and_says_what_pairs_can_tell(finished):
    table = finished[0].table()
    lines = table.splitlines()
    assert sum(line.startswith("policy-gradient ") for line in lines) == 1
    assert sum(line.startswith("ppo ") for line in lines) == 1
    assert "0 of 2" in table  # nobody reached the threshold
    assert "Intervals of few seeds are too narrow" in table
    assert sum("policy-gradient" in line and "ppo" in line for line in lines) == 2
    assert "nan" not in table


def test_the_same_seeds_give_the_same_histories_whoever_computes_them(finished):
    comparison, _ = finished
    with ThreadPoolExecutor(1) as executor:
        again = small(seeds=[3, 1], executor=executor)
        assert executor.submit(int, 3).result() == 3  # it was not shut down
    assert timeless(again.summary) == timeless(comparison.summary)
    for name, seeds in comparison.runs.items():
        for seed, run in seeds.items():
            found = again.runs[name][seed].columns
            assert found.keys() == run.columns.keys()
            for column in found.keys() - {"cpu_seconds"}:
                np.testing.assert_array_equal(found[column], run.columns[column], err_msg=column)


def test_a_run_does_not_depend_on_its_company(finished):
    comparison, _ = finished
    others = small(dict(reversed(TWO.items())), seeds=[1])
    assert list(others.runs) == ["ppo", "policy-gradient"]  # in the caller's order
    for found in (others, small({"ppo": TWO["ppo"]}, seeds=[1])):
        np.testing.assert_array_equal(
            found.runs["ppo"][1].columns["kl"], comparison.runs["ppo"][1].columns["kl"]
        )


class Stops(ThreadPoolExecutor):
    """Computes `left` items, one after the other, then fails."""

    def __init__(self, left, error=ConnectionError):
        super().__init__(1)
        self.left, self.error = left, error

    def submit(self, function, *arguments):
        return super().submit(self._compute, function, *arguments)

    def _compute(self, function, *arguments):
        if self.left == 0:
            raise self.error
        self.left -= 1
        return function(*arguments)


class Lost(Exception):
    """An error from where `Stops` comes from, too: its class does not tell who raised it."""


@dataclass(frozen=True)
class Raises:
    error: Exception

    def init(self, policy):
        return PolicyGradient().init(policy)

    def update(self, state, batch, rng):
        raise self.error


@pytest.mark.parametrize("count", [1, 3])
def test_an_interrupted_comparison_resumes(count, finished, trained, tmp_path):
    comparison, folder = finished
    with Stops(count) as executor:
        with pytest.raises(RuntimeError, match="was lost"):
            small(seeds=[3, 1], out=tmp_path, executor=executor)
        executor.left = 1
        assert executor.submit(str, 3).result() == "3"  # it was not shut down
    survivors = stored(tmp_path)
    assert len(survivors) == count
    trained.clear()
    resumed = small(seeds=[3, 1], out=tmp_path)
    again = [f"{name}-seed{seed}.npz" for name, seed in trained]
    assert sorted(again + survivors) == stored(folder)
    assert timeless(resumed.summary) == timeless(comparison.summary)
    assert timeless(strict((tmp_path / "summary.json").read_text())) == timeless(comparison.summary)
    tables = (rows_of(out / "runs.csv", ["cpu_seconds"]) for out in (tmp_path, folder))
    assert next(tables) == next(tables)


@pytest.mark.parametrize("error", [Lost, CancelledError, ConnectionError])
def test_a_run_that_its_executor_loses_ends_with_what_is_kept(error, tmp_path):
    lost = rf"ppo, seed 3 was lost.*\({error.__name__}\).*call again"
    with Stops(1, error) as executor, pytest.raises(RuntimeError, match=lost) as caught:
        small(seeds=[3], out=tmp_path, executor=executor)
    assert isinstance(caught.value.__cause__, error)
    assert stored(tmp_path) == ["policy-gradient-seed3.npz"]


@pytest.mark.parametrize("error", [pickle.PicklingError, AttributeError, TypeError])
def test_what_an_executor_cannot_send_is_not_called_lost(error):
    with Stops(0, error) as executor, pytest.raises(error) as caught:
        small({"ppo": PPO()}, seeds=[3], executor=executor)
    assert caught.value.__notes__ == ["in ppo, seed 3"]


@pytest.mark.parametrize("error", [Lost, CancelledError, BrokenExecutor])
def test_an_error_of_a_run_is_not_taken_for_the_executors_whatever_its_class(error):
    bad = {"bad": Raises(error("in the update"))}
    message = rf"{error.__name__}: in the update \(.*test_compare.py, line \d+, in update\)"
    with Stops(1) as executor, pytest.raises(TrainingStopped, match=message) as caught:
        small(bad, seeds=[4], executor=executor)
    assert type(caught.value.__cause__) is error
    assert caught.value.__notes__ == ["in bad, seed 4"]


def test_what_is_stored_is_not_trained_again_and_what_is_missing_is(trained, tmp_path):
    first = small(seeds=[3, 1], out=tmp_path)
    (tmp_path / "runs" / "ppo-seed1.npz").unlink()
    trained.clear()
    more = small(seeds=[3, 1, 0], out=tmp_path)  # more seeds of the same experiment
    assert sorted(trained) == [("policy-gradient", 0), ("ppo", 0), ("ppo", 1)]
    assert list(more.runs["ppo"]) == [3, 1, 0]
    # the cost of a stored run is what it took when it was trained
    before, after = (
        found.summary["algorithms"]["policy-gradient"]["cpu_seconds"] for found in (first, more)
    )
    assert before == after[:2]


def array_changed(**change):
    def damage(path):
        header, arrays = load_arrays(path, "minirl-run-1")
        save_arrays(path, "minirl-run-1", header, arrays | change)

    return damage


def truncated(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"header.npy") + 1000])  # inside what is stored


@pytest.mark.parametrize(
    "damage",
    [
        None,  # negative control
        truncated,
        lambda path: path.write_bytes(b""),
        lambda path: np.savez(path, weights=np.arange(3)),
        array_changed(scores=np.zeros(2)),
        array_changed(kl=np.zeros(3)),
        array_changed(kl=np.zeros((1, 1))),
        array_changed(environment_steps=np.array(1.0)),
    ],
)
def test_a_damaged_run_is_trained_again(damage, trained, tmp_path):
    arguments = {"algorithms": {"ppo": TWO["ppo"]}, "seeds": 1, "total_steps": 1, "out": tmp_path}
    first = small(**arguments)
    path = tmp_path / "runs" / "ppo-seed0.npz"
    (damage or array_changed())(path)
    trained.clear()
    again = small(**arguments)
    assert trained == ([("ppo", 0)] if damage else [])
    assert timeless(again.summary) == timeless(first.summary)
    assert np.load(path)["header"]  # and stored whole
    trained.clear()
    small(**arguments)
    assert trained == []


def test_two_names_of_one_kind_get_settings_of_their_own():
    env, names = "minirl/TokenGeneration-v0", ["policy-gradient", "rloo"]
    given = {"total_steps": 1, "seeds": 1, "evaluation_episodes": 2, "workers": 1}
    described = compare(env, names, **given).summary["settings"]["algorithms"]
    assert described["rloo"]["settings"]["advantages"]["type"] == "LeaveOneOut"
    assert described["rloo"]["settings"]["group_size"] == 4
    assert described["policy-gradient"]["settings"]["group_size"] == 1


def test_algorithms_of_ones_own(trained, tmp_path):
    def own():
        algorithms = {"mine": environments.PlainClass(0.01), "twice": environments.PlainClass(0.02)}
        return small(algorithms, environments.steady, total_steps=100, out=tmp_path)

    first = own()
    assert list(first.runs) == ["mine", "twice"]
    mine, twice = (first.runs[name][0].columns["kl"] for name in first.runs)
    assert not np.array_equal(mine, twice)
    assert timeless(own().summary) == timeless(first.summary)
    assert len(trained) == 4  # it resumed: an equal object is the same algorithm


def test_the_environment_may_be_a_partial_function():
    env = functools.partial(environments.wide, length=3)
    comparison = small({"mine": PolicyGradient()}, env, seeds=1, total_steps=100)
    assert comparison.runs["mine"][0].columns["episodes"][-1] > 30


@pytest.mark.parametrize("name", ["ppo, clipped", 'lr "high"', "λ=1", "50 %"])
def test_names_may_hold_what_csv_must_quote(name, tmp_path):
    small({name: PolicyGradient()}, seeds=1, total_steps=1, out=tmp_path)
    assert {row["algorithm"] for row in rows_of(tmp_path / "runs.csv")} == {name}
    assert list(strict((tmp_path / "summary.json").read_text())["algorithms"]) == [name]
    assert len(stored(tmp_path)) == 1


def test_settings_of_their_own_are_used_and_said_under_the_figure():
    other = Settings(num_envs=1, rollout_steps=64, hidden_sizes=(4,))
    comparison = small(settings={"ppo": other, "policy-gradient": SMALL}, seeds=1, total_steps=1)
    described = comparison.summary["settings"]["algorithms"]
    assert described["ppo"]["settings"]["num_envs"] == 1
    assert described["policy-gradient"]["settings"]["num_envs"] == 2
    assert comparison.runs["ppo"][0].columns["environment_steps"][0] < 65


def test_the_footnote_says_what_is_shared_and_what_is_not():
    shared, ppo, trpo = footnote(
        [
            WorkItem("CartPole-v1", name, algorithm, SMALL, 0, 300, 3)
            for name, algorithm in {"ppo": PPO(epochs=2), "trpo": TRPO(max_kl=0.02)}.items()
        ]
    ).splitlines()
    assert "2 environments" in shared
    assert "lam 0.95" in shared
    assert "epochs 2" in ppo
    assert "max kl 0.02" in trpo


def test_a_single_seed_has_no_interval(tmp_path):
    comparison = small(seeds=1, total_steps=1, out=tmp_path)
    summary = strict((tmp_path / "summary.json").read_text())
    for entry in summary["algorithms"].values():
        score = entry["evaluation_return"]
        assert (score["iqm"], score["ci95"]) == (score["per_seed"][0], [None, None])
    for pair in summary["comparisons"]:
        assert pair["difference_interval"] == [None, None]
        assert pair["distinguishable"] is False
    assert "nan" not in comparison.table()


def test_without_a_finished_episode_there_is_no_training_return(tmp_path):
    comparison = small(env="Pendulum-v1", total_steps=1, out=tmp_path)
    nothing = {"iqm": None, "ci95": [None, None], "per_seed": [None, None]}
    for entry in strict((tmp_path / "summary.json").read_text())["algorithms"].values():
        assert entry["final_training_return"] == nothing
        assert None not in entry["evaluation_return"]["per_seed"]
        assert entry["steps_to_threshold"] == [None, None]
    assert "no episode ended" in comparison.table()
    assert not re.search(r"\b(nan|None|null)\b", comparison.table())
    assert (tmp_path / "curves.png").exists()


@pytest.mark.parametrize(
    ("per_seed", "text"),
    [
        ([np.nan] * 3, "no episode ended"),
        ([7.0, np.nan, 9.0], "no episode: 1 of 3 seeds"),
        ([7.0, np.nan, np.nan], "no episode: 2 of 3 seeds"),
    ],
)
def test_no_episode_ended_is_said_only_if_none_did(per_seed, text):
    assert _score_text(statistics.summarize(per_seed, np.random.default_rng(0))) == text


def test_an_algorithm_that_counts_no_gradient_equivalents(monkeypatch, tmp_path):
    class Uncounted(environments.PlainClass):
        def update(self, *arguments):
            state, metrics = super().update(*arguments)
            del metrics["gradient_equivalents"]
            return state, metrics

    algorithms = {"mine": Uncounted(0.01), "ppo": PPO()}
    small(algorithms, environments.steady, total_steps=1, out=tmp_path)
    strict((tmp_path / "summary.json").read_text())


def test_runs_in_threads_at_the_same_time_are_refused():
    refused = threading.Event()

    @dataclass(frozen=True)
    class Waits(PolicyGradient):
        def update(self, *arguments):
            refused.wait(30)
            return super().update(*arguments)

    with ThreadPoolExecutor(2) as executor:
        with pytest.raises(RuntimeError, match="processes instead of threads"):
            small({"one": Waits(), "other": Waits()}, executor=executor)
        refused.set()


IN_A_NOTEBOOK = """
import dataclasses
import gymnasium
import environments
import minirl

@dataclasses.dataclass(frozen=True)
class Mine(minirl.PolicyGradient):
    pass

def my_env(num_envs):
    return environments.steady(num_envs)

def small(algorithms, env, **arguments):
    try:
        minirl.compare(
            env, algorithms, total_steps=1, seeds=2, workers=2, evaluation_episodes=1, **arguments
        )
    except ValueError as error:
        print(error, error.__notes__)

gymnasium.register("Mine-v0", environments.Steady)
small({"mine": Mine()}, "CartPole-v1")
small(["ppo"], my_env)
small(["ppo"], "Mine-v0")
"""


def test_what_workers_cannot_import_is_named_with_the_way_out():
    """A class, a function and an environment of a session without a file, like a notebook."""
    folder = str(Path(environments.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NOTEBOOK],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([folder, *sys.path])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    classes, functions, ids = done.stdout.splitlines()
    assert "'Mine'" in classes
    assert "'my_env'" in functions
    for line in (classes, functions):
        assert "must live in a module" in line
        assert "workers=1" in line
    assert "environment 'Mine-v0' is not registered in a worker process" in ids
    assert "'that_module:Mine-v0'" in ids
    for line, name in ((classes, "mine"), (functions, "ppo"), (ids, "ppo")):
        assert f"in {name}, seed" in line


def test_what_cannot_be_pickled_is_refused_before_a_process_starts():
    before = multiprocessing.active_children()
    with pytest.raises(ValueError, match="ppo, seed 0 can't be sent to a worker.*lambda.*module"):
        small(["ppo"], lambda num_envs: environments.steady(num_envs), workers=2)
    assert multiprocessing.active_children() == before


def test_a_process_pool_of_the_caller_names_what_it_cannot_import(monkeypatch):
    lost = type("Lost", (PolicyGradient,), {"__module__": "__main__"})
    monkeypatch.setattr(sys.modules["__main__"], "Lost", lost, raising=False)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as executor:
        with pytest.raises(ValueError, match="not found in a worker process.*'Lost'.*module"):
            small({"lost": lost()}, seeds=[0], executor=executor)
        found = small(["ppo"], environments.steady, seeds=[0], total_steps=1, executor=executor)
    assert list(found.runs["ppo"]) == [0]


def test_the_table_says_how_many_episodes_were_cut(tmp_path):
    arguments = {"total_steps": 1, "out": tmp_path}
    for _ in ("trained", "from the stored runs"):
        found = small(env=environments.endless, **arguments)
        assert found.table().count("6 of 6 evaluation episodes had not ended and were cut") == 2
        for entry in found.summary["algorithms"].values():
            assert entry["cut_episodes"] == [3, 3]
    assert strict((tmp_path / "summary.json").read_text()) == found.summary
    assert "were cut" not in small(env=environments.steady, total_steps=1).table()


def test_evaluation_episodes_last_as_long_as_the_caller_says():
    arguments = {"total_steps": 1, "seeds": [0], "evaluation_episodes": 2, "max_steps": 1100}
    comparison = small({"ppo": PPO()}, environments.endless, **arguments)
    run = comparison.runs["ppo"][0]
    # greedy and always shown the same, a policy earns 0 or 1 in every step
    assert run.evaluation_return in (0, 1100)
    assert run.cut_episodes == 2
    assert comparison.summary["settings"]["max_steps"] == 1100


def test_steps_to_the_threshold_are_whole_numbers(monkeypatch):
    spec = gymnasium.envs.registration.EnvSpec(
        "Solved-v0", environments.Steady, reward_threshold=0.0
    )
    monkeypatch.setitem(gymnasium.registry, "Solved-v0", spec)
    for entry in small(env="Solved-v0", total_steps=600).summary["algorithms"].values():
        # two environments in step, so the hundredth episode is the fiftieth of the second one
        assert entry["steps_to_threshold"] == [500, 500]
        assert [type(steps) for steps in entry["steps_to_threshold"]] == [int, int]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        *(
            ({"algorithms": {name: PolicyGradient()}}, f"name.*{re.escape(repr(name))}")
            for name in ("a/b", "../up", "nul\0", "")
        ),
        ({"settings": {"pppo": SMALL, "policy-gradient": SMALL}}, "pppo"),
        ({"env": environments.four}, r"got 4 from env\(1\)"),
        ({"out": Path(__file__) / "results"}, "can't be written"),
        ({"seeds": 10**30}, "seeds must be at most 10,000, got 1,000,000"),
        ({"algorithms": ["ppo", "a2c"]}, "'a2c' is unknown.*trpo"),
        ({"algorithms": {}}, "at least one algorithm"),
        ({"max_steps": 0}, "max_steps must be a whole number of at least 1, got 0"),
        ({"algorithms": []}, "at least one algorithm"),
        ({"seeds": 0}, "seeds.*0"),
        ({"seeds": []}, r"seeds.*\[\]"),
        ({"seeds": [1, 2, 1]}, r"seeds.*\[1, 2, 1\]"),
        ({"seeds": [0, -1]}, "seed.*-1"),
        ({"seeds": [0.5]}, "seed.*0.5"),
        ({"total_steps": 0}, "total_steps.*0"),
        ({"total_steps": float("nan")}, "total_steps.*nan"),
        ({"evaluation_episodes": 0}, "evaluation_episodes.*0"),
        ({"workers": 0}, "workers.*0"),
        ({"env": "Foo-v1"}, "'Foo-v1'"),
        ({"env": "nowhere_to_be_found:Env-v0"}, "nowhere_to_be_found"),
    ],
)
def test_bad_arguments_are_named_and_leave_no_mark(arguments, words, trained, tmp_path):
    with pytest.raises(ValueError, match=words) as caught:
        small(**{"out": tmp_path / "results", **arguments})
    assert "\n" not in str(caught.value)
    assert trained == []
    # otherwise the comparison as it was meant would find "another experiment" there
    assert list(tmp_path.rglob("*.*")) == []


def test_whole_numbers_of_numpy_are_whole_numbers(tmp_path):
    for total_steps, seeds in ((np.int64(1), np.arange(2)), (1, 2)):  # the same experiment
        found = small({"ppo": PPO()}, total_steps=total_steps, seeds=seeds, out=tmp_path)
        assert list(found.runs["ppo"]) == [0, 1]
        strict((tmp_path / "summary.json").read_text())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"total_steps": 301}, "total_steps is 300 there, 301 here"),
        ({"env": "Acrobot-v1"}, "env is 'CartPole-v1' there, 'Acrobot-v1' here"),
        ({"algorithms": {"ppo": PPO(epochs=3)}, "seeds": [1]}, "epochs is 2 there, 3 here"),
        ({"seeds": [1], "evaluation_episodes": 4}, "evaluation_episodes is 3 there, 4 here"),
        ({"seeds": [1], "settings": Settings()}, "num_envs is 2 there, 8 here"),
    ],
)
def test_a_folder_that_holds_another_experiment(changes, words, finished):
    _, folder = finished
    before = (folder / "summary.json").read_bytes()
    with pytest.raises(ValueError, match=words) as caught:
        small(**changes, out=folder)
    assert str(folder) in str(caught.value)
    assert (folder / "summary.json").read_bytes() == before


@pytest.mark.parametrize("threads", [0, 1])
def test_a_seed_that_fails_is_named(threads, tmp_path):
    algorithms = {"good": PolicyGradient(), "bad": environments.Fails()}
    with ThreadPoolExecutor(1) as executor:
        with pytest.raises(TrainingStopped, match="ArithmeticError: the update can't") as caught:
            small(
                *(algorithms, "CartPole-v1"),
                seeds=[4],
                total_steps=1,
                out=tmp_path,
                executor=executor if threads else None,
            )
        assert executor.submit(int, 3).result() == 3
    assert caught.value.__notes__ == ["in bad, seed 4"]
    assert stored(tmp_path) == ["good-seed4.npz"]


def test_a_seed_that_fails_in_a_worker_process_ends_the_others_at_once_and_quietly(tmp_path):
    # giving up what waits and what runs must not make a thread of the pool fail, which pytest
    # reports here and which users would see as a traceback of its own
    began = time.monotonic()
    with pytest.raises(TrainingStopped, match="ArithmeticError: the update") as caught:
        small(
            {"bad": environments.Fails(), "slow": environments.Sleeps()},
            environments.steady,
            seeds=8,
            total_steps=1,
            out=tmp_path,
            workers=2,
        )
    assert time.monotonic() - began < 30
    assert re.fullmatch(r"in bad, seed \d", caught.value.__notes__[0])
    assert "in update\n" in str(caught.value.__cause__)  # where in the worker it happened
    assert stored(tmp_path) == []
    assert multiprocessing.active_children() == []


class Two(Exception):
    """Can't be unpickled: only its message is."""

    def __init__(self, first, second):
        super().__init__(f"{first}, {second}")

    def __reduce__(self):
        # the default, unless `distributed`, which mends it, is imported
        return Two, self.args


class Locked(Exception):
    """Can't be pickled."""

    def __init__(self, message):
        super().__init__(message)
        self.lock = threading.Lock()


@pytest.mark.parametrize("error", [Two("one", 2), Locked("one, 2")])
def test_an_error_that_cannot_be_pickled_is_still_told(error):
    found = pickle.loads(pickle.dumps(Failure(error))).error
    assert type(found) is RuntimeError
    assert str(found) == f"{type(error).__name__}: one, 2"
    assert str(error) in str(found.__cause__)
    stopped = TrainingStopped("no more", "what was learned")  # others keep class and contents
    found = pickle.loads(pickle.dumps(Failure(stopped))).error
    assert type(found) is TrainingStopped
    assert (str(found), found.result) == ("no more", "what was learned")


def test_a_worker_that_dies_costs_only_what_was_not_finished(tmp_path):
    good = tmp_path / "runs" / "good-seed0.npz"
    algorithms = {"good": PolicyGradient(), "dies": environments.DiesInWorker(str(good))}
    arguments = {"env": environments.steady, "seeds": 1, "total_steps": 1, "out": tmp_path}
    with pytest.raises(RuntimeError, match="worker process died.*call again"):
        small(algorithms, workers=2, **arguments)
    assert stored(tmp_path) == ["good-seed0.npz"]  # whole, and nothing half written
    stored_at = good.stat().st_mtime_ns
    small(algorithms, **arguments)
    assert stored(tmp_path) == ["dies-seed0.npz", "good-seed0.npz"]
    assert good.stat().st_mtime_ns == stored_at


def test_a_seed_makes_two_vector_environments_and_one_policy(monkeypatch):
    """One to train in and one to evaluate in; before that, the entrance checks once."""
    made = Counter()
    for name in ("make_vector_env", "make_policy"):
        function = getattr(minirl, name)

        def count(*arguments, name=name, function=function, **named):
            made[name] += 1
            return function(*arguments, **named)

        for module in list(sys.modules.values()):
            if module.__name__.startswith("minirl") and getattr(module, name, None) is function:
                monkeypatch.setattr(module, name, count)
    totals = []
    for seeds in (1, 3):
        made.clear()
        small(["ppo"], settings=None, seeds=seeds)
        totals.append(dict(made))
    for name, per_seed in (("make_vector_env", 2), ("make_policy", 1)):
        assert totals[1][name] - totals[0][name] == 2 * per_seed
