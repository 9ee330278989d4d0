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
    ("control.swimmer", "STUDY", lambda script: script.wanted(20)),
    ("speed.peers", "STUDY", lambda script: script.wanted(5)),
    ("rlhf.dpo_vs_ppo", "STUDY", lambda script: script.jobs()),
    ("rlhf.dpo_vs_ppo", "COMPUTE", lambda script: script.compute_jobs()),
    ("rlhf.search", "SHAPING", lambda script: script.shaping_wanted()),
    ("rlhf.verifiable_claims", "STUDY", lambda script: script.stored_keys()),
    ("rlhf.preference_losses", "STUDY", lambda script: script.items()),
    *(
        (name, "STUDY", lambda script: script.wanted())
        for name in ("control.presets", "rlhf.choices", "rlhf.reach", "rlhf.search")
    ),
]
CONTROL = ["classic_control", "mujoco_tasks", "ppo_objectives", "presets", "swimmer"]

# page, script, tables (a function of the script)
PAGES = [
    ("results/control.md", "control.classic_control", lambda s: [s.exploration_table()]),
    *(("results/control.md", f"control.{name}", lambda s: [s.table()]) for name in CONTROL),
    *(
        ("reference/choices.md", f"{of}.choices", lambda s: [s.table()])
        for of in ("control", "rlhf")
    ),
    ("results/rlhf.md", "rlhf.dpo_vs_ppo", lambda s: s.tables(s.COMPUTE.rows()).values()),
    ("results/rlhf.md", "rlhf.dpo_vs_ppo", lambda s: s.label_tables(s.STUDY.rows()).values()),
    ("rlhf/claims.md", "rlhf.verifiable_claims", lambda s: s.tables().values()),
    ("rlhf/findings.md", "rlhf.verifiable_claims", lambda s: [s.steps_table()]),
    (
        "rlhf/preference-losses.md",
        "rlhf.preference_losses",
        lambda s: s.tables(s.STUDY.rows()).values(),
    ),
    ("results/rlhf.md", "rlhf.reach", lambda s: s.tables(s.STUDY.rows()).values()),
    ("rlhf/search.md", "rlhf.search", lambda s: [s.search_table(), s.shaping_table()]),
    ("results/speed-peers-table.md", "speed.peers", lambda s: [s.tables()]),
    ("results/speed-scaling.md", "speed.scaling", lambda s: s.tables(s.from_rows(s.STUDY.rows()))),
    ("results/tests.md", "mutation", lambda s: [s.table(s.stored_rows())]),
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
