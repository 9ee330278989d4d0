"""The code under "The loop" of each algorithm's page runs and computes what `update` computes."""

import re
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import minirl

PAGES = Path(__file__).parents[1] / "docs" / "algorithms"
ALGORITHMS = {
    "natural-gradient": minirl.NaturalGradient(damping=0.1),
    "trpo": minirl.TRPO(normalize_advantages=True),
    "ppo": minirl.PPO(learning_rate=1e-3, minibatch_size=256, normalize_advantages=True),
}


def blocks(name):
    """The Python code of the section, one string per block."""
    section = (PAGES / f"{name}.md").read_text().split("## The loop\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.S)


@pytest.fixture(scope="module")
def after_the_loop():
    names = {}
    training, one_update = blocks("policy-gradient")
    exec(training, names)
    exec(one_update, dict(names))
    return names


def test_the_training_loop_learns_from_batches(after_the_loop):
    assert len(after_the_loop["batch"]) > 400
    assert after_the_loop["metrics"]["kl"] > 0


def test_the_loop_of_advantages_prints_gae(capsys):
    exec(blocks("advantages")[0], {})
    advantages = [float(line.split()[2]) for line in capsys.readouterr().out.splitlines()]
    errors = 0.99 * np.array([0.6, 0.7, 0.0]) - [0.5, 0.6, 0.7] + [0, 0, 1]
    decay = 0.99 * 0.95
    assert advantages[-1] == pytest.approx(errors @ decay ** np.arange(3), abs=1e-3)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_core_on_the_page_gives_the_parameters_of_update(name, after_the_loop):
    state, batch = after_the_loop["state"], after_the_loop["batch"]
    algorithm = ALGORITHMS[name]
    update, _ = algorithm.update(algorithm.init(state.policy), batch, np.random.default_rng(3))
    page = dict(after_the_loop) | {"rng": np.random.default_rng(3)}
    exec(blocks(name)[0], page)
    np.testing.assert_array_equal(page["policy"].parameters, update.policy.parameters)
    assert not np.array_equal(page["policy"].parameters, state.policy.parameters)


def test_the_loops_of_rlhf_give_what_the_package_gives():
    """From page to page in one namespace, as the pages say."""
    rlhf, names = minirl.rlhf, {}
    [fine_tuning] = blocks("../rlhf/supervised-fine-tuning")
    exec(fine_tuning, names)
    task = names["task"]
    reference = rlhf.fine_tune(task, names["demonstrations"]).policy
    np.testing.assert_array_equal(names["reference"].parameters, reference.parameters)

    exec(*blocks("../rlhf/reward-model"), names)
    model = rlhf.fit_reward_model(names["features"], names["preferences"])
    np.testing.assert_allclose(names["w"], model.weights, atol=1e-6)

    with_dpo = dict(names)
    exec(*blocks("../rlhf/dpo"), with_dpo)
    dpo = rlhf.DPO(beta=0.3, steps=20, learning_rate=0.1, minibatch_size=3000)
    fitted = dpo.fit(task, reference, names["preferences"], np.random.default_rng(0)).policy
    np.testing.assert_allclose(with_dpo["policy"].parameters, fitted.parameters, atol=1e-6)

    exec(*blocks("../rlhf/rlhf"), names)
    objective = rlhf.Objective(task, reference, names["rewards"], beta=0.3)
    assert objective.fraction_of_optimum(names["learner"].policy) > 0.5


def test_the_walk_through_a_failed_run_has_the_settings_of_its_figures(monkeypatch):
    root = PAGES.parents[1]
    page = (root / "docs" / "reference" / "debugging.md").read_text()
    walk = page.split("## A walk")[1]
    names = {}
    monkeypatch.setattr(minirl, "train", lambda *_, **__: mock.MagicMock())
    shown = []
    for block in re.findall(r"```python\n(.*?)```", walk, re.S):
        exec(block, names)
        shown.append((names["algorithm"], names["settings"]))
    script = (root / "docs" / "drawings" / "debugging.py").read_text()
    drawn = {"minirl": minirl, "replace": replace}
    exec(script.split("# begin: on the page")[1].split("# end: on the page")[0], drawn)
    assert shown == [(algorithm, settings) for _, algorithm, settings in drawn["variants"]()]
