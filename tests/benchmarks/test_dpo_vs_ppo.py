"""DPO, PPO and TRPO with equal means: what is run, grouped and told."""

from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(load):
    return load("rlhf.dpo_vs_ppo")


def row(method, fraction, seed=0, **others):
    cells = {"pairs": 0, "sentences": 0, "steps": 0, "repeat": 0, "cpu_seconds": 0.0}
    cells |= {"method": method, "fraction": fraction, "seed": seed, **others}
    return {key: str(value) for key, value in cells.items()}


def test_runs_that_the_file_holds_are_not_run_again(script):
    first, second = SimpleNamespace(seed=1, repeat=0), SimpleNamespace(seed=2, repeat=0)
    again = SimpleNamespace(seed=1, repeat=1)
    jobs = [(setup, ("PPO", n)) for setup in (first, second, again) for n in (10, 20, 30)]
    rows = [row("PPO", 0.9, seed=1), row("PPO", 0.9, seed=1), row("TRPO", 0.9, seed=2)]
    rows += [row("PPO", 0.9, seed=1, repeat=1)]
    left = script.lacking(jobs, rows)
    assert [(setup.seed, setup.repeat, n) for setup, (_, n) in left] == [
        (1, 0, 30),
        *((2, 0, n) for n in (10, 20, 30)),
        *((1, 1, n) for n in (20, 30)),
    ]


def test_seeds_of_a_budget_stand_together_though_dpo_samples_differently(script):
    rows = [
        row("DPO", 0.1, seed=0, pairs=300, steps=600, sentences=690),
        row("DPO", 0.2, seed=0, pairs=1000, steps=600, sentences=2300),
        row("PPO", 0.3, seed=0, sentences=2048),
        row("PPO", 0.4, seed=0, sentences=4096),
        row("DPO", 0.5, seed=1, pairs=300, steps=600, sentences=694),
    ]
    of_dpo, of_ppo = (script.of_budgets(rows, name) for name in ("DPO", "PPO"))
    assert [[found["fraction"] for found in group] for group in of_dpo] == [["0.1", "0.5"], ["0.2"]]
    assert [[found["fraction"] for found in group] for group in of_ppo] == [["0.3"], ["0.4"]]


def test_the_best_that_fits_into_a_budget(script):
    rows = [
        row(method, fraction, seed, sentences=sentences, cpu_seconds=seconds)
        for seed in (0, 1)
        for method, sentences, fraction, seconds in [
            ("PPO, preset", 10, 0.8, 0.3),
            ("PPO, set", 10, 0.9, 0.6),
            ("PPO, set", 20, 0.7, 0.5),
            ("TRPO, set", 10, 1.0, 0.1),
        ]
    ]
    names = ("PPO, preset", "PPO, set")
    assert script.best_within(rows, names, "cpu_seconds", 0.6) == "0.900 [0.900, 0.900]"
    assert script.best_within(rows, names, "cpu_seconds", 0.5) == "0.800 [0.800, 0.800]"
    assert script.best_within(rows, names, "cpu_seconds", 0.2) == ""


def test_the_same_run_ends_alike_in_both_files(script):
    first, second = (
        {
            (row["method"], row["seed"], row["sentences"]): row["fraction"]
            for row in study.rows()
            if row["repeat"] == "0"
        }
        for study in (script.STUDY, script.COMPUTE)
    )
    names = {"PPO, preset": "PPO, gold", "TRPO, preset": "TRPO, gold"}
    compared = {
        (names[method], seed, sentences): fraction
        for (method, seed, sentences), fraction in second.items()
        if method in names
    }
    assert len(compared) == 2 * len(script.SEEDS) * len(script.SENTENCES)
    assert compared.items() <= first.items()


@pytest.mark.parametrize("arguments", [[], ["--compute"]])
def test_the_stored_file_holds_all_runs_of_its_command(script, monkeypatch, arguments):
    def row(setup, method, learn):
        pytest.fail(f"{method}, seed {setup.seed}, is not in the file")

    monkeypatch.setattr("sys.argv", ["dpo_vs_ppo.py", *arguments])
    monkeypatch.setattr(script.Setup, "row", row)
    script.main()


def test_the_page_holds_the_tables_of_the_stored_runs(script):
    page = (ROOT / "docs" / "results" / "rlhf.md").read_text()
    for table in script.tables(script.COMPUTE.rows()).values():
        assert table in page
