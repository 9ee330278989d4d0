"""The figure of verifiable rewards: its weights are those of the exact updates."""

import numpy as np
import pytest
import scipy.special
from PIL import Image

from minirl.exact import sequences
from minirl.exact.groups import expected_update
from minirl.experiments.alignment import verifiable
from minirl.experiments.alignment.chain import ALL_METHODS, METHODS, prepare
from minirl.networks import Features
from minirl.optimizers import SGD

TABLE = scipy.special.log_softmax(np.random.default_rng(0).normal(size=(2, 2, 3, 3)), axis=-1)[0]
REWARDS = np.array([[1, 0, 0, 1, 0, 0, 1], [0, 1, 0, 0, 0, 0, 0]], dtype=float)
ADVANTAGES = {
    "rloo": "leave-one-out",
    "grpo-paper": "normalized",
    "dr-grpo": "centred",
    "maxrl": "success",
}


@pytest.mark.parametrize("name", ADVANTAGES)
@pytest.mark.parametrize("group_size", [2, 5, 16])
def test_weights_are_those_of_the_exact_updates(name, group_size):
    p = (np.exp(sequences.response_log_probs(TABLE)) * REWARDS).sum(axis=1)
    gradient = sequences.policy_gradient(TABLE, TABLE, REWARDS, 0.0)
    weights = verifiable.prompt_weights(p, group_size)[name]
    update = expected_update(TABLE, REWARDS, group_size, advantage=ADVANTAGES[name])
    np.testing.assert_allclose(update, weights[:, None, None] * gradient, rtol=0, atol=1e-14)
    others = {key: w for key, w in verifiable.prompt_weights(p, group_size).items() if key != name}
    if group_size > 3:
        assert all(np.abs(w - weights).max() > 0.05 for w in others.values())


def test_all_methods_take_the_same_steps():
    chosen = [verifiable.same_steps(name) for name in verifiable.METHODS]
    for item in chosen:
        assert (item.algorithm.optimizer, item.algorithm.learning_rate) == (SGD(), 3.0)
        assert item.algorithm.epochs == 1
        assert item.algorithm.penalty is None
        assert (item.settings.num_envs, item.settings.group_size) == (512, 16)
    assert len({item.settings.advantages for item in chosen}) == 4  # GRPO and DAPO share theirs


@pytest.fixture(scope="module")
def rates():
    return verifiable.success_rates(seed=0)


def test_rates_are_recorded_from_the_reference_to_the_end(rates, tmp_path):
    assert tuple(rates) == verifiable.METHODS
    for name, (sentences, curve) in rates.items():
        assert curve.shape == (len(sentences), 4)
        assert sentences[0] == 0
        assert sentences[-1] >= verifiable.SENTENCES
        np.testing.assert_array_equal(curve[0], rates["rloo"][1][0])
        assert (curve[-1] > curve[0]).all(), name
    lines = verifiable.describe_verifiable(rates).splitlines()
    assert lines[1].split()[1:] == [f"{rate:.3f}" for rate in rates["rloo"][1][0]]
    assert lines[-1].split() == ["maxrl", *(f"{rate:.3f}" for rate in rates["maxrl"][1][-1])]
    verifiable.draw_verifiable(rates, tmp_path / "verifiable.png")
    with Image.open(tmp_path / "verifiable.png") as picture:
        assert min(picture.size) > 400


def test_maxrl_solves_the_hardest_prompt_long_before_the_others(rates):
    last = {name: curve[-1, -1] for name, (_, curve) in rates.items()}
    others = [rate for name, rate in last.items() if name != "maxrl"]
    assert last["maxrl"] > 5 * max(others)


def test_the_chain_knows_the_new_methods_and_a_network():
    assert set(ALL_METHODS) - set(METHODS) >= {"grpo-paper", "dr-grpo", "dapo", "gspo", "cispo"}
    assert "maxrl" not in ALL_METHODS  # the gold reward is not 0 or 1
    prepared = prepare(beta=0.3, labels=200, seed=0, model="mlp")
    assert isinstance(prepared.tuned.policy.network, Features)
    table = prepare(beta=0.3, labels=200, seed=0)
    assert prepared.tuned.perplexity < table.tuned.perplexity
