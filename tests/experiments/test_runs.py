import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from minirl.experiments.runs import claim_folder, claimed_folder, load_run, save_training
from minirl.settings import Settings
from minirl.support.history import History
from minirl.support.serialization import load_policy, save_arrays
from minirl.training import train

IDENTITY = {"kind": "train", "env": "CartPole-v1", "settings": {"num_envs": 8, "lam": 0.95}}


def test_a_folder_is_made_marked_and_given_back_and_the_same_experiment_may_come_again(tmp_path):
    folder = claim_folder(str(tmp_path / "a" / "b"), IDENTITY)
    assert folder == tmp_path / "a" / "b"
    assert [path.name for path in folder.iterdir()] == ["experiment.json"]
    assert json.loads((folder / "experiment.json").read_text()) == IDENTITY
    (folder / "policy.npz").write_text("kept")
    claim_folder(folder, json.loads(json.dumps(IDENTITY)))
    assert (folder / "policy.npz").read_text() == "kept"


def test_another_experiment_is_refused_and_nothing_is_changed(tmp_path):
    claim_folder(tmp_path, IDENTITY)
    other = {**IDENTITY, "settings": {"num_envs": 4, "lam": 0.95}}
    with pytest.raises(
        ValueError, match=r"another experiment: settings.num_envs is 8 there, 4 here"
    ) as caught:
        claim_folder(tmp_path, other)
    assert str(tmp_path) in str(caught.value)
    assert json.loads((tmp_path / "experiment.json").read_text()) == IDENTITY


@pytest.mark.parametrize(
    ("content", "beside", "words"),
    [(text, None, "another experiment") for text in ("null", "[]", "3", "{}", '{"env": "x"}')]
    + [
        (text, beside, words)
        for text in ("", "{", "\udcff", '{"kind": "tr')
        for beside, words in [
            ("runs/ppo-seed0.npz", None),  # finished runs have their own identity
            ("policy.npz", r"experiment.json is damaged.*choose another folder"),
        ]
    ],
)
def test_a_marker_that_is_damaged_or_not_ours(content, beside, words, tmp_path):
    marker, content = tmp_path / "experiment.json", content.encode(errors="surrogateescape")
    marker.write_bytes(content)
    if beside:
        (tmp_path / beside).parent.mkdir(exist_ok=True)
        (tmp_path / beside).write_text("perhaps another experiment's")
    if words is None:
        claim_folder(tmp_path, IDENTITY)
        assert json.loads(marker.read_text()) == IDENTITY
        assert (tmp_path / beside).exists()
        return
    with pytest.raises(ValueError, match=words) as caught:
        claim_folder(tmp_path, IDENTITY)
    assert "\n" not in str(caught.value)
    assert marker.read_bytes() == content


@pytest.mark.parametrize("error", [ValueError("no such environment"), KeyboardInterrupt()])
def test_a_block_that_fails_before_it_stores_anything_frees_the_folder(error, tmp_path):
    def work():
        with claimed_folder(tmp_path, IDENTITY) as folder:
            (folder / "runs").mkdir()
            raise error

    with pytest.raises(type(error)):
        work()
    other = {**IDENTITY, "env": "Acrobot-v1"}
    with claimed_folder(tmp_path, other) as folder:
        assert folder == tmp_path
    assert json.loads((tmp_path / "experiment.json").read_text()) == other  # it ended well


@pytest.mark.parametrize("name", ["policy.npz", "runs/ppo-seed0.npz"])
def test_a_block_that_fails_after_it_stored_something_keeps_the_folder(name, tmp_path):
    def work():
        with claimed_folder(tmp_path, IDENTITY) as folder:
            (folder / "runs").mkdir()
            (folder / name).write_text("kept")
            raise ValueError("later")

    with pytest.raises(ValueError, match="later"):
        work()
    assert (tmp_path / name).read_text() == "kept"
    with pytest.raises(ValueError, match="another folder$"):
        claim_folder(tmp_path, {**IDENTITY, "env": "Acrobot-v1"})


def test_a_claim_without_results_names_both_ways_out(tmp_path):
    claim_folder(tmp_path, IDENTITY)  # and its process was killed
    with pytest.raises(ValueError, match="another folder, or delete it: it contains no results$"):
        claim_folder(tmp_path, {**IDENTITY, "env": "Acrobot-v1"})


def test_load_run(tmp_path):
    path = tmp_path / "run.npz"
    assert load_run(path, "test-1", IDENTITY) is None
    save_arrays(path, "test-1", IDENTITY, {"a": np.arange(3)})
    np.testing.assert_array_equal(load_run(path, "test-1", IDENTITY)["a"], [0, 1, 2])
    with pytest.raises(
        ValueError, match=r"run.npz belongs to another experiment: env is 'CartPole-v1'"
    ):
        load_run(path, "test-1", {**IDENTITY, "env": "Acrobot-v1"})
    path.write_bytes(path.read_bytes()[:-1])
    assert load_run(path, "test-1", IDENTITY) is None


def trained(total_steps):
    settings = Settings(num_envs=2, rollout_steps=32, hidden_sizes=(4,))
    return train("CartPole-v1", "ppo", total_steps=total_steps, settings=settings, seed=2)


def test_save_training_leaves_policy_history_and_curve(tmp_path):
    result = trained(200)
    save_training(result, tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["curve.png", "history.csv", "policy.npz"]
    policy, description = load_policy(tmp_path / "policy.npz")
    np.testing.assert_array_equal(policy.parameters, result.policy.parameters)
    assert description == result.description
    with open(tmp_path / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(result.history.rows)
    assert float(rows[-1]["environment_steps"]) == result.history.environment_steps
    with Image.open(tmp_path / "curve.png") as image:
        assert min(image.size) > 300


def test_save_training_before_the_first_update_leaves_what_there_is(tmp_path):
    result = replace(trained(1), history=History())
    assert save_training(result, tmp_path) == ["policy.npz", "history.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.csv", "policy.npz"]
    load_policy(tmp_path / "policy.npz")


def partial_after(steps, result):
    return replace(
        result, description={**result.description, "partial": True, "environment_steps": steps}
    )


def test_a_partial_result_replaces_neither_a_finished_one_nor_a_longer_partial_one(tmp_path):
    result = trained(200)
    assert save_training(partial_after(100, result), tmp_path)
    for longer in (partial_after(150, result), result):
        assert save_training(longer, tmp_path)
        kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        assert save_training(partial_after(149, result), tmp_path) == []
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept
    _, description = load_policy(tmp_path / "policy.npz")
    assert description["partial"] is False
    assert description["environment_steps"] == result.history.environment_steps >= 200
