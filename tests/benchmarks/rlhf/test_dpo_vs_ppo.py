"""DPO, PPO and TRPO with equal means: the stored runs, budgets and tables."""

from benchmarks.rlhf import dpo_vs_ppo as script


def row(method, fraction, seed=0, **others):
    cells = {"pairs": 0, "sentences": 0, "steps": 0, "repeat": 0, "cpu_seconds": 0.0}
    cells |= {"method": method, "fraction": fraction, "seed": seed, **others}
    return {key: str(value) for key, value in cells.items()}


def test_seeds_of_a_budget_stand_together_though_dpo_samples_differently():
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


def test_the_best_that_fits_into_a_budget():
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


def test_the_same_run_ends_alike_in_both_files():
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


def test_a_run_is_stored_with_what_it_used():
    job = script.Job(
        "DPO", 200, 0, script.partial(script.Setup.dpo, pairs=300, kind="soft", steps=3)
    )
    values = dict(zip(script.COMPUTE.values, script.run(job), strict=True))
    assert (values["pairs"], values["answers"], values["steps"]) == (300, 300, 3)
    assert values["sentences"] > 600  # identical pairs are dropped
    assert 0 < float(values["fraction"]) < 1
    assert values["gradient_equivalents"] > 0
