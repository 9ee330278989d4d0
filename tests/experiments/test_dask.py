"""Comparisons on a Dask cluster: worker processes die, the whole cluster goes, nothing changes."""

import contextlib
import csv
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster
from environments import DiesOften, Held, steady, wait_for

from minirl.algorithms import PPO, PolicyGradient
from minirl.experiments.compare import compare
from minirl.settings import Settings
from minirl.training import TrainingStopped

SETTINGS = Settings(num_envs=2, rollout_steps=64, hidden_sizes=(4,))
CLOCKS = {"cpu_seconds"}  # the one column that two equal runs don't share
DEATHS_FORGIVEN = 1  # by the scheduler, of the workers of one run; Dask's own default is 3


# A cluster in a process of its own, until its input ends
CLUSTER = """
from distributed import LocalCluster
with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
    print(cluster.scheduler_address, flush=True)
    input()
"""


def small(algorithms, env=steady, **arguments):
    given = {"total_steps": 300, "seeds": 2, "evaluation_episodes": 3, "settings": SETTINGS}
    return compare(env, algorithms, **{**given, **arguments})


@pytest.fixture(scope="module")
def client():
    """A client of two worker processes on this machine; nothing of them is left afterwards."""
    before = set(multiprocessing.active_children())
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": DEATHS_FORGIVEN}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
    assert set(multiprocessing.active_children()) <= before


@pytest.fixture(autouse=True)
def no_figure(monkeypatch):
    """The figure shows what is compared here, and takes longer to draw than the runs to compute."""
    monkeypatch.setattr("minirl.experiments.figures.plot_comparison", lambda *args, **kwargs: None)


def without_clocks(columns):
    return {name: values for name, values in columns.items() if name not in CLOCKS}


def stored(folder):
    """All files that a comparison stores, without the times; the names of the others."""
    summary = json.loads((folder / "summary.json").read_text())
    for entry in summary["algorithms"].values():
        del entry["cpu_seconds"]
    runs = {}
    for path in (folder / "runs").iterdir():
        with np.load(path) as file:
            runs[path.name] = without_clocks(file)
    with open(folder / "runs.csv", newline="") as file:
        rows = [without_clocks(row) for row in csv.DictReader(file)]
    return summary, runs, rows, {path.name for path in folder.iterdir()}


def assert_as_serial(found, folder, algorithms, serial_folder, **arguments):
    """Every field but times is that of the same comparison in this process."""
    serial = small(algorithms, workers=1, out=serial_folder, **arguments)
    assert list(found.runs) == list(serial.runs)
    for name, seeds in serial.runs.items():
        assert list(found.runs[name]) == list(seeds)
        for seed, run in seeds.items():
            other = found.runs[name][seed]
            np.testing.assert_equal(without_clocks(other.columns), without_clocks(run.columns))
            for score in ("final_training_return", "evaluation_return", "steps_to_threshold"):
                np.testing.assert_equal(getattr(other, score), getattr(run, score))
    np.testing.assert_equal(stored(folder), stored(serial_folder))


def kept(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "runs").iterdir()}


def held_workers(folder, count):
    """Process ids of workers in the middle of a run, once there are so many."""
    patience = time.monotonic() + 60
    while len(found := list(folder.glob("*.held"))) < count:
        assert time.monotonic() < patience, f"{len(found)} of {count} workers have begun"
        time.sleep(0.02)
    return [int(path.stem) for path in found]


def test_a_cluster_computes_what_one_process_computes(client, tmp_path):
    algorithms = {"policy-gradient": PolicyGradient(), "ppo": PPO(epochs=2)}
    arguments = {"env": "CartPole-v1", "seeds": [3, 1]}
    executor = client.get_executor()
    found = small(algorithms, executor=executor, out=tmp_path / "cluster", **arguments)
    assert_as_serial(found, tmp_path / "cluster", algorithms, tmp_path / "serial", **arguments)
    assert executor.submit(int, 3).result() == 3  # it was not shut down


def test_the_run_of_a_worker_that_dies_runs_again(client, tmp_path):
    algorithms = {
        "good": PolicyGradient(),
        "dies": DiesOften(str(tmp_path), DEATHS_FORGIVEN, after=str(tmp_path)),
    }
    found = small(algorithms, executor=client.get_executor(), out=tmp_path / "cluster")
    assert len(list(tmp_path.glob("death*"))) == DEATHS_FORGIVEN
    assert_as_serial(found, tmp_path / "cluster", algorithms, tmp_path / "serial")


def test_a_run_whose_workers_die_too_often_is_lost_and_can_be_run_again(client, tmp_path):
    folder, serial_folder = tmp_path / "cluster", tmp_path / "serial"
    good = folder / "runs" / "good-seed0.npz"
    algorithms = {
        "good": PolicyGradient(),
        "dies": DiesOften(str(tmp_path), DEATHS_FORGIVEN + 1, after=str(good)),
    }
    arguments = {"seeds": 1, "executor": client.get_executor(), "out": folder}
    lost = r"dies, seed 0 was lost .*\(KilledWorker\); call again"
    with pytest.raises(RuntimeError, match=lost) as caught:
        small(algorithms, **arguments)
    before = kept(folder)
    assert list(before) == ["good-seed0.npz"]

    found = small(algorithms, **arguments)  # Dask remembers the error while `caught` lives
    assert caught.value.__cause__ is not None
    assert before.items() <= kept(folder).items()
    assert_as_serial(found, folder, algorithms, serial_folder, seeds=1)


def test_a_run_s_own_error_is_itself_and_ends_with_its_comparison(client, tmp_path):
    class Own(Exception):
        """As if of a script: workers can't import it."""

    @dataclass(frozen=True)
    class RaisesOnce:
        folder: str

        def init(self, policy):
            return PolicyGradient().init(policy)

        def update(self, state, batch, rng):
            raised = Path(self.folder) / "raised"
            if not raised.exists():
                raised.touch()
                raise Own("the update can't be done")
            return PolicyGradient().update(state, batch, rng)

    arguments = {"seeds": 1, "executor": client.get_executor()}
    with pytest.raises(TrainingStopped, match="Own: the update can't be done") as caught:
        small({"bad": RaisesOnce(str(tmp_path))}, **arguments)
    assert caught.value.__notes__ == ["in bad, seed 0"]
    assert "in update\n" in str(caught.value.__cause__)  # where in the worker it happened

    small({"bad": RaisesOnce(str(tmp_path))}, **arguments)


@pytest.fixture
def doomed_cluster():
    """(client, process) of a cluster in a process group of its own, to be killed as a whole."""
    path = os.pathsep.join(sys.path)  # where the worker finds `environments`
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
        start_new_session=True,
    ) as process:
        try:
            with Client(process.stdout.readline().strip()) as client:
                yield client, process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_a_cluster_that_goes_away_leaves_the_finished_runs(doomed_cluster, tmp_path):
    client, process = doomed_cluster
    folder, serial_folder = tmp_path / "cluster", tmp_path / "serial"
    algorithms = {"good": PolicyGradient(), "held": Held(str(tmp_path))}
    with ThreadPoolExecutor(1) as thread:
        comparison = thread.submit(
            small, algorithms, seeds=1, executor=client.get_executor(), out=folder
        )
        held_workers(tmp_path, 1)
        wait_for(folder / "runs" / "good-seed0.npz")
        os.killpg(process.pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match=r"held, seed 0 was lost .*call again"):
            comparison.result(timeout=60)
    before = kept(folder)
    assert list(before) == ["good-seed0.npz"]

    found = small(algorithms, seeds=1, workers=1, out=folder)
    assert before.items() <= kept(folder).items()
    assert_as_serial(found, folder, algorithms, serial_folder, seeds=1)
