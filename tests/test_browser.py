"""minirl in a Python without processes, threads and a clock of one thread, as in a browser."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

import minirl.browser

ROOT = Path(__file__).parents[1]

LIKE_A_BROWSER = """
import sys, threading, time

def cannot_start(thread):
    raise RuntimeError("can't start new thread")

sys.modules["_multiprocessing"] = None
del time.thread_time
threading.Thread.start = cannot_start
import minirl
assert "threadpoolctl" not in sys.modules  # it would warn
"""

TRAINS = """
import warnings
warnings.simplefilter("error")
algorithm, settings = (preset := minirl.preset("CartPole-v1", "ppo")).algorithm, preset.settings
result = minirl.train("CartPole-v1", algorithm, settings=settings, total_steps=4096, progress=True)
assert result.history.columns()["cpu_seconds"][-1] > 0
"""

COMPARES = """
comparison = minirl.compare(
    "CartPole-v1", ["ppo", "trpo"], total_steps=2048, seeds=2, evaluation_episodes=2, progress=True
)
assert len(comparison.runs["trpo"]) == 2
"""

REFUSES_WORKERS = """
try:
    minirl.compare("CartPole-v1", ["ppo"], total_steps=2048, seeds=2, workers=2)
except ValueError as error:
    assert str(error) == "workers must be 1 in a browser, which has no processes, got 2"
else:
    raise AssertionError("two workers were accepted")
"""


def run_like_a_browser(code: str, folder: Path = ROOT) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIKE_A_BROWSER + code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    "code", [TRAINS, COMPARES, REFUSES_WORKERS], ids=["train", "compare", "two workers"]
)
def test_training_and_comparisons_need_neither_processes_nor_threads(code):
    run_like_a_browser(code)


def test_the_code_of_the_first_notebook_runs():
    notebook = json.loads((ROOT / "notebooks" / "01_policy_gradient.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    run_like_a_browser("\n".join(cells), ROOT / "notebooks")


def test_nothing_is_changed_where_nothing_is_missing():
    assert not minirl.browser.IN_BROWSER
    assert sys.modules["_multiprocessing"].SemLock is not minirl.browser.SemLock
    assert tqdm.monitor_interval > 0
