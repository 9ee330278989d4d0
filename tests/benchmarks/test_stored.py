"""The stored runs: every run is stored once, and the pages show the tables made from them."""

import importlib
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"

# script, name of its study, items (a function of the script)
STUDIES = [
    ("control.choices", "STUDY", lambda script: script.wanted(10)),
    ("control.classic_control", "STUDY", lambda script: script.wanted(10)),
    ("control.mujoco_tasks", "SCORES", lambda script: script.wanted(3)),
    ("control.ppo_objectives", "STUDY", lambda script: script.wanted(8)),
    ("control.presets", "STUDY", lambda script: script.wanted()),
    ("control.swimmer", "STUDY", lambda script: script.wanted(20)),
    ("rlhf.choices", "STUDY", lambda script: script.wanted()),
    ("rlhf.dpo_vs_ppo", "STUDY", lambda script: script.jobs()),
    ("rlhf.dpo_vs_ppo", "COMPUTE", lambda script: script.compute_jobs()),
    ("rlhf.reach", "STUDY", lambda script: script.wanted()),
    ("speed.peers", "STUDY", lambda script: script.wanted(5)),
]

# page, script, tables (a function of the script)
PAGES = [
    ("reference/choices.md", "control.choices", lambda script: [script.table()]),
    ("reference/choices.md", "rlhf.choices", lambda script: [script.table()]),
    (
        "results/control.md",
        "control.classic_control",
        lambda script: [script.table(), script.exploration_table()],
    ),
    ("results/control.md", "control.mujoco_tasks", lambda script: [script.table()]),
    ("results/control.md", "control.ppo_objectives", lambda script: [script.table()]),
    ("results/control.md", "control.presets", lambda script: [script.table()]),
    ("results/control.md", "control.swimmer", lambda script: [script.table()]),
    (
        "results/rlhf.md",
        "rlhf.dpo_vs_ppo",
        lambda script: script.tables(script.COMPUTE.rows()).values(),
    ),
    ("results/rlhf.md", "rlhf.reach", lambda script: script.tables(script.STUDY.rows()).values()),
    ("results/speed-peers-table.md", "speed.peers", lambda script: [script.tables()]),
    (
        "results/speed-scaling.md",
        "speed.scaling",
        lambda script: script.tables(script.from_rows(script.STUDY.rows())),
    ),
    ("results/tests.md", "mutation", lambda script: [script.table(script.stored_rows())]),
]


@pytest.mark.parametrize(("name", "study", "items"), STUDIES)
def test_every_run_is_stored_once(name, study, items):
    script = importlib.import_module(f"benchmarks.{name}")
    stored, wanted = getattr(script, study), list(items(script))
    assert stored.missing(wanted) == []
    assert len(stored.rows()) == len(wanted)


@pytest.mark.parametrize(("page", "name", "tables"), PAGES)
def test_the_page_shows_the_tables_of_the_stored_runs(page, name, tables):
    text = (DOCS / page).read_text()
    for table in tables(importlib.import_module(f"benchmarks.{name}")):
        assert table
        assert table in text
