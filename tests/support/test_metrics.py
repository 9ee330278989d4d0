from dataclasses import replace

import numpy as np
import pytest
from cat import describe_the_cat

from minirl.algorithms import ALGORITHMS
from minirl.presets import preset
from minirl.reward_transforms import ReturnScaling
from minirl.rlhf import Objective, align, full_prefix_policy
from minirl.settings import Settings
from minirl.support.metrics import GLOSSARY, Metric, require_known
from minirl.training import train


def test_every_entry_says_what_it_is_and_what_is_healthy():
    for name, metric in GLOSSARY.items():
        assert name.isidentifier()
        assert all((metric.meaning.strip(), metric.healthy.strip())), name
        assert metric.unit == metric.unit.strip(), name


def test_known_names_pass_and_unknown_ones_are_all_named(monkeypatch):
    require_known([])
    require_known(GLOSSARY)
    with pytest.raises(KeyError, match=r"\['a_typo', 'another'\].*GLOSSARY"):
        require_known(["kl", "another", "a_typo"])
    monkeypatch.setitem(GLOSSARY, "another", Metric("smiles per update", "smiles", "above 0"))
    require_known(["kl", "another"])


def test_the_glossary_defines_what_training_logs_and_nothing_else():
    logged = set()
    for name in ALGORITHMS:
        settings = replace(
            preset("CartPole-v1", name).settings,
            num_envs=2,
            rollout_steps=16,
            reward_transform=ReturnScaling(),
        )
        result = train("CartPole-v1", name, total_steps=1, settings=settings)
        logged |= result.history.columns().keys()
    assert "smallest_std" not in logged  # of Box actions only
    gaussian = Settings(num_envs=2, rollout_steps=16)
    logged |= train("Pendulum-v1", "trpo", total_steps=1, settings=gaussian).history.rows[0].keys()
    task = describe_the_cat()
    uniform = np.zeros((len(task.prompts), task.num_contexts, len(task.vocabulary)))
    reference = full_prefix_policy(task, uniform)
    measure = Objective(task, reference, task.utilities, beta=0.3).measure
    aligned = align(task, reference, task.utilities, "rloo", sentences=1, measure=measure)
    logged |= aligned.history.columns().keys()
    logged |= {"exact_gold_reward"}  # beside the learned one: see the over-optimisation of `rlhf`
    logged |= {"evaluation_return"}  # of `train(evaluate_every=...)`
    logged |= {"exact_return"}  # of a finite MDP: see notebook 1
    assert logged == GLOSSARY.keys()
