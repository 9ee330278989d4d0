"""DPO and IPO: losses and gradients by enumeration, fixed points exactly."""

import itertools
import math
import re
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from cat import describe_the_cat
from scipy.special import expit, log_softmax

from minirl.envs.arithmetic import arithmetic
from minirl.envs.token_tasks import Paths
from minirl.exact import sequences
from minirl.optimizers import SGD, LinearSchedule
from minirl.rlhf.dpo import DPO, implicit_reward, path_log_probs, probability_masses
from minirl.rlhf.language_model import full_prefix_policy, log_table
from minirl.rlhf.objective import Objective
from minirl.rlhf.preference_losses import dpo_loss, ipo_loss
from minirl.rlhf.preferences import Annotator, Pairs, Preferences, sample_pairs
from minirl.rlhf.reward_model import bradley_terry_loss, one_hot
from minirl.rlhf.sft import fine_tune, sample_demonstrations

CAT = describe_the_cat()
LENGTHS = CAT.paths(np.zeros(40, int), np.arange(40)).valid.sum(axis=1)
BETA = 0.3
close = partial(np.testing.assert_allclose, rtol=0)


def random_policy(seed, scale=1.0):
    logits = scale * np.random.default_rng(seed).normal(size=(2, 13, 4))
    return full_prefix_policy(CAT, log_softmax(logits, axis=2))


def response_log_probs(policy):
    return sequences.response_log_probs(log_table(CAT, policy))


REFERENCE, POLICY = random_policy(0), random_policy(1)
OBJECTIVE = Objective(CAT, REFERENCE, CAT.utilities, BETA)
OPTIMUM = OBJECTIVE.optimal_policy
PROMPTS, FIRST, SECOND = (
    np.array(column)
    for column in zip(
        *((x, one, other) for x in range(2) for one in range(40) for other in range(one)),
        strict=True,
    )
)
EVERY_PAIR = Pairs(PROMPTS, FIRST, SECOND, identical=0)


def some_pairs(count, seed, labels):
    """Pairs drawn from all, labelled softly or hard, with labels that no reward explains."""
    rng = np.random.default_rng(seed)
    rows, turned = rng.choice(len(PROMPTS), size=count), rng.random(count) < 0.5
    first, second = FIRST[rows], SECOND[rows]
    drawn = rng.random(count)
    return Preferences(
        PROMPTS[rows],
        np.where(turned, second, first),
        np.where(turned, first, second),
        drawn if labels == "soft" else drawn < 0.5,
    )


def paths_of(preferences):
    return tuple(
        CAT.paths(preferences.prompts, responses)
        for responses in (preferences.first, preferences.second)
    )


def loss_and_gradient(method, policy, preferences, reference=REFERENCE):
    """The method's own, with the log-probabilities of the reference from its table."""
    log_probs = response_log_probs(reference)
    both = log_probs[preferences.prompts, np.stack([preferences.first, preferences.second])]
    return method.loss_and_gradient(policy, *paths_of(preferences), both, preferences.labels)


# ---------------------------------------------------------------- the losses


def test_margins_far_out_or_infinite_do_not_overflow():
    """A pair whose worse answer the policy excludes costs nothing."""
    loss, slopes = dpo_loss(np.array([-2000.0, 2000.0]), np.array([1.0, 0.0]))
    assert loss == pytest.approx(2000)
    close(slopes, [-0.5, 0.5], atol=1e-12)
    with np.errstate(all="raise"):
        loss, slopes = dpo_loss(np.array([-np.inf, np.inf]), np.array([0.0, 1.0]))
    assert loss == 0
    assert slopes.tolist() == [0, 0]


# ---------------------------------------------------------------- margins and gradients


def test_log_probabilities_are_summed_over_the_tokens():
    log_probs, table = response_log_probs(POLICY), log_table(CAT, POLICY)
    prompts, responses = np.array([0, 1, 1]), np.array([0, CAT.response("soft dog"), 39])
    found, _ = path_log_probs(POLICY, CAT.paths(prompts, responses))
    close(found, log_probs[prompts, responses], atol=1e-12)
    by_hand = table[1, 0, 2] + table[1, 3, 1] + table[1, 11, 3]  # soft, dog, EOS
    assert found[1] == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize("loss", ["dpo", "ipo"])
@pytest.mark.parametrize("labels", ["soft", "hard"])
def test_the_gradient_by_enumeration(loss, labels):
    """Pair by pair into a table of dL / d log pi(y|x), and that through `score_sum`."""
    preferences, beta = some_pairs(200, 5, labels), 0.7
    total, coefficients = 0.0, np.zeros((2, 40))
    log_ratio = response_log_probs(POLICY) - response_log_probs(REFERENCE)
    for row in range(200):
        x, label = preferences.prompts[row], preferences.labels[row]
        one, other = preferences.first[row], preferences.second[row]
        m = log_ratio[x, one] - log_ratio[x, other]
        if loss == "dpo":
            total -= label * math.log(expit(beta * m)) + (1 - label) * math.log(expit(-beta * m))
            slope = beta * (expit(beta * m) - label)
        else:
            near, far = m - 1 / (2 * beta), m + 1 / (2 * beta)
            total += label * near**2 + (1 - label) * far**2
            slope = 2 * (label * near + (1 - label) * far)
        coefficients[x, one] += slope / 200
        coefficients[x, other] -= slope / 200
    value, gradient, margins = loss_and_gradient(DPO(beta=beta, loss=loss), POLICY, preferences)
    assert value == pytest.approx(total / 200, abs=1e-12)
    exact = sequences.score_sum(log_table(CAT, POLICY), coefficients)
    close(gradient[:-4], exact.ravel(), atol=1e-12)
    close(gradient[-4:], 0.0, atol=0)  # nothing is learned about 'ended'
    rows = preferences.prompts, [preferences.first, preferences.second]
    first, second = implicit_reward(CAT, POLICY, REFERENCE, beta)[rows]
    close(margins, first - second, atol=1e-12)


def test_padded_positions_never_matter():
    preferences = some_pairs(400, 7, "soft")
    rng = np.random.default_rng(8)

    def spoiled(paths):
        padding, (observations, tokens, valid) = ~paths.valid, (c.copy() for c in paths)
        assert padding.sum() > 10
        observations[padding] = rng.choice([0, 5, 10**9], size=padding.sum())
        tokens[padding] = rng.choice([0, 3, -(10**9)], size=padding.sum())
        return Paths(observations, tokens, valid)

    first, second = paths_of(preferences)
    arguments = np.zeros((2, 400)), preferences.labels
    for method in (DPO(), DPO(loss="ipo")):
        clean = method.loss_and_gradient(POLICY, first, second, *arguments)
        dirty = method.loss_and_gradient(POLICY, spoiled(first), spoiled(second), *arguments)
        assert clean[0] == dirty[0]
        assert np.array_equal(clean[1], dirty[1])
        assert np.array_equal(clean[2], dirty[2])


# ---------------------------------------------------------------- fixed points


def test_with_soft_labels_the_optimum_is_stationary_whatever_the_pairs():
    """pi* of E[r] - beta KL, from pairs alone; and nothing near it is."""
    everything = Annotator().soft(EVERY_PAIR, CAT.utilities)
    few = Annotator().soft(
        sample_pairs(CAT, REFERENCE, 100, np.random.default_rng(9)), CAT.utilities
    )
    method = DPO(beta=BETA)
    for preferences in (everything, few):
        _, gradient, _ = loss_and_gradient(method, OPTIMUM, preferences)
        assert np.abs(gradient).max() < 1e-12
        assert np.abs(loss_and_gradient(method, POLICY, preferences)[1]).max() > 1e-3
        assert np.abs(loss_and_gradient(method, REFERENCE, preferences)[1]).max() > 1e-3
    # Another beta, temperature or rate of flips has another optimum.
    assert np.abs(loss_and_gradient(DPO(beta=0.4), OPTIMUM, everything)[1]).max() > 1e-3
    for annotator in (Annotator(temperature=0.5), Annotator(flip=0.2)):
        labelled = annotator.soft(EVERY_PAIR, CAT.utilities)
        assert np.abs(loss_and_gradient(method, OPTIMUM, labelled)[1]).max() > 1e-3


def test_averaged_over_tokens_the_optimum_is_not_stationary():
    """Negative control: margins from log-ratios divided by the length of the response."""
    preferences = Annotator().soft(EVERY_PAIR, CAT.utilities)
    log_ratio = response_log_probs(OPTIMUM) - response_log_probs(REFERENCE)
    largest = {}
    for name, lengths in {"summed": np.ones(40), "averaged": LENGTHS}.items():
        scaled = BETA * log_ratio / lengths
        margins = scaled[PROMPTS, FIRST] - scaled[PROMPTS, SECOND]
        _, slopes = dpo_loss(margins, preferences.labels)
        coefficients = np.zeros((2, 40))
        np.add.at(coefficients, (PROMPTS, FIRST), slopes)
        np.add.at(coefficients, (PROMPTS, SECOND), -slopes)
        coefficients = BETA * coefficients / lengths
        gradient = sequences.score_sum(log_table(CAT, OPTIMUM), coefficients)
        largest[name] = np.abs(gradient).max()
    assert largest["summed"] < 1e-12
    assert largest["averaged"] > 1e-3


def test_the_fixed_point_of_ipo_is_the_reference_tilted_by_win_rates():
    """Azar et al.: pi proportional to ref exp(P(preferred to a random answer) / beta)."""
    preferences = Annotator().soft(EVERY_PAIR, CAT.utilities)
    differences = CAT.utilities[:, :, None] - CAT.utilities[:, None, :]
    win_rates = expit(differences).mean(axis=2)  # against every answer alike, as the pairs are
    log_policy, _ = sequences.soft_optimal_policy(log_table(CAT, REFERENCE), win_rates, BETA)
    fixed = full_prefix_policy(CAT, log_policy)
    _, gradient, _ = loss_and_gradient(DPO(beta=BETA, loss="ipo"), fixed, preferences)
    assert np.abs(gradient).max() < 1e-12
    _, gradient, _ = loss_and_gradient(DPO(beta=BETA, loss="ipo"), OPTIMUM, preferences)
    assert np.abs(gradient).max() > 1e-3


def test_the_implicit_reward_of_the_optimum_is_the_reward():
    """Up to a constant for each prompt, beta log Z."""
    found = implicit_reward(CAT, OPTIMUM, REFERENCE, BETA)
    constants = CAT.utilities - found
    close(constants, constants[:, :1] * np.ones(40), atol=1e-9)
    assert constants[:, 0].mean() == pytest.approx(OBJECTIVE.optimum, abs=1e-9)


@pytest.mark.parametrize("beta", [0.1, 0.3, 2.0])
def test_every_policy_is_optimal_for_its_implicit_reward(beta):
    for seed in range(3):
        policy = random_policy(seed + 10)
        rewards = implicit_reward(CAT, policy, REFERENCE, beta)
        recovered = Objective(CAT, REFERENCE, rewards, beta).optimal_policy
        close(response_log_probs(recovered), response_log_probs(policy), atol=1e-10)
    close(implicit_reward(CAT, REFERENCE, REFERENCE, beta), 0.0, atol=0)


# ---------------------------------------------------------------- fit


def now_and_then(measure, every):
    """Measure at every so many calls only."""
    calls = itertools.count()
    return lambda policy: measure(policy) if next(calls) % every == 0 else {}


def test_learning_from_every_pair_with_soft_labels_ends_at_the_optimum():
    preferences = Annotator().soft(EVERY_PAIR, CAT.utilities)
    result = DPO(steps=400).fit(
        CAT,
        REFERENCE,
        preferences,
        np.random.default_rng(0),
        measure=now_and_then(lambda p: {"fraction": OBJECTIVE.fraction_of_optimum(p)}, 100),
    )
    assert OBJECTIVE.fraction_of_optimum(result.policy) > 0.999
    measured = [row["fraction"] for row in result.rows if "fraction" in row]
    assert measured[0] == 0.0
    assert len(measured) == 4
    assert [row for row in range(400) if "fraction" in result.rows[row]] == [0, 100, 200, 300]
    assert measured[0] < measured[1] < measured[3]
    assert result.rows[-1]["loss"] < result.rows[0]["loss"]


@dataclass(frozen=True)
class Recorder:
    """An optimizer that stands still and remembers what it was given."""

    seen: list

    def init(self, theta):
        return None

    def step(self, state, theta, gradient, learning_rate):
        self.seen.append((gradient, learning_rate))
        return state, theta


def test_an_epoch_sees_every_pair_once():
    preferences = some_pairs(60, 11, "soft")
    whole, recorder = [], Recorder([])
    for size, kept in ((60, whole), (1000, whole), (20, recorder.seen)):
        method = DPO(beta=BETA, steps=6, minibatch_size=size, optimizer=Recorder(kept))
        rows = method.fit(CAT, REFERENCE, preferences, np.random.default_rng(12)).rows
        assert [row["loss"] for row in rows] == pytest.approx([math.log(2)] * 6, abs=1e-12)
    _, exact, _ = loss_and_gradient(DPO(beta=BETA), REFERENCE, preferences)
    for gradient, _ in whole:  # a minibatch larger than the corpus is the corpus
        close(gradient, exact, atol=1e-12)
    parts = [gradient for gradient, _ in recorder.seen]
    close(sum(parts[:3]) / 3, exact, atol=1e-12)
    close(sum(parts[3:]) / 3, exact, atol=1e-12)
    assert np.abs(parts[0] - parts[3]).max() > 1e-4  # shuffled anew
    rates = [rate for _, rate in recorder.seen]
    close(rates, 0.1 * (1 - np.arange(6) / 6), atol=1e-12)


def test_agreement_is_the_share_of_margins_with_the_sign_of_the_label():
    """The last row of four steps is measured before the fourth: on what three steps return."""
    preferences = some_pairs(40, 13, "hard")
    of_three, of_four = (
        DPO(steps=steps, learning_rate=0.1).fit(
            CAT, REFERENCE, preferences, np.random.default_rng(0)
        )
        for steps in (3, 4)
    )
    implicit = implicit_reward(CAT, of_three.policy, REFERENCE, 0.3)
    prompts = preferences.prompts
    agreed = implicit[prompts, preferences.chosen] > implicit[prompts, preferences.rejected]
    assert of_four.rows[3]["agreement"] == agreed.mean()
    assert 0.6 < agreed.mean() < 1


def test_progress_is_shown_in_steps_if_asked_for_and_changes_nothing(capsys):
    pairs, dpo = some_pairs(10, 3, "hard"), DPO(steps=3, minibatch_size=4)
    silent = dpo.fit(CAT, REFERENCE, pairs, np.random.default_rng(0))
    assert silent.rows[0]["loss"] == math.log(2)  # to the last bit
    assert capsys.readouterr().err == ""
    shown = dpo.fit(CAT, REFERENCE, pairs, np.random.default_rng(0), progress=True)
    assert re.search(r"3/3 .*\dstep/s", capsys.readouterr().err)
    assert shown.rows == silent.rows
    assert shown.policy.parameters.tobytes() == silent.policy.parameters.tobytes()
    other = dpo.fit(CAT, REFERENCE, pairs, np.random.default_rng(1))
    assert not np.array_equal(other.policy.parameters, silent.policy.parameters)


def test_the_optimizer_begins_at_the_references_parameters():
    began = []

    class Watched(SGD):
        def init(self, theta):
            began.append(theta)

    dpo = DPO(steps=1, optimizer=Watched())
    dpo.fit(CAT, REFERENCE, some_pairs(10, 3, "soft"), np.random.default_rng(0))
    assert began == [REFERENCE.parameters]


def test_the_reference_is_never_touched():
    reference = fine_tune(CAT, sample_demonstrations(CAT, 200, np.random.default_rng(15))).policy
    before = reference.parameters.tobytes()
    for loss in ("dpo", "ipo"):
        method = DPO(loss=loss, steps=5, optimizer=SGD(), learning_rate=LinearSchedule(1.0))
        result = method.fit(CAT, reference, some_pairs(60, 16, "hard"), np.random.default_rng(0))
        assert reference.parameters.tobytes() == before
        assert not np.array_equal(result.policy.parameters, reference.parameters)
        assert not np.shares_memory(result.policy.parameters, reference.parameters)


# ---------------------------------------------------------------- where the probability goes


def test_probability_masses_by_enumeration():
    #              chosen  rejected
    preferences = Preferences(
        np.array([0, 0, 0, 1]),
        np.array([1, 2, 5, 0]),
        np.array([2, 3, 4, 7]),
        np.array([1.0, 1.0, 0.0, 0.0]),
    )
    groups = {
        "chosen": {(0, 1), (0, 4), (1, 7)},
        "rejected": {(0, 3), (0, 5), (1, 0)},
        "both": {(0, 2)},
    }
    probs = np.exp(response_log_probs(POLICY))
    found = probability_masses(CAT, POLICY, preferences)
    for name, members in groups.items():
        expected = sum(probs[x, y] for x, y in members) / 2
        assert found[name] == pytest.approx(expected, abs=1e-12)
    assert list(found) == ["chosen", "rejected", "both", "unseen"]
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_where_the_probability_goes_on_the_arithmetic_task(seed):
    """The rejected lose everything; but most of the chosen lose too, to those that never lost.

    300 pairs with hard labels, 150 steps. Answers that no pair mentions lose as well: full prefixes
    share only the tokens of a common beginning.
    """
    task, rng = arithmetic(), np.random.default_rng(seed)
    reference = fine_tune(task, sample_demonstrations(task, 2000, rng)).policy
    pairs = sample_pairs(task, reference, 300, rng)
    hard = Annotator().hard(pairs, task.utilities, rng)
    before = sequences.response_log_probs(log_table(task, reference))

    def measure(policy):
        now = sequences.response_log_probs(log_table(task, policy))
        change = now - before
        return {
            **probability_masses(task, policy, hard),
            "chosen_log_prob": change[hard.prompts, hard.chosen].mean(),
            "rejected_log_prob": change[hard.prompts, hard.rejected].mean(),
            "share_of_chosen_that_fell": (change[hard.prompts, hard.chosen] < 0).mean(),
        }

    result = DPO(steps=150).fit(task, reference, hard, rng, measure=now_and_then(measure, 150))
    start, end = result.rows[0], measure(result.policy)
    assert start["rejected"] > 0.05 > 100 * end["rejected"]
    assert end["chosen"] > 5 * start["chosen"]
    assert end["both"] < start["both"] / 2
    assert end["unseen"] < start["unseen"] / 3
    assert end["rejected_log_prob"] < 2 * end["chosen_log_prob"] < -3
    assert end["share_of_chosen_that_fell"] > 0.6


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "hinge"}, "loss must be one of dpo, .*, apo-down, or a loss of .*, got 'hinge'"),
        ({"minibatch_size": 1.5}, "minibatch_size must be a whole number of at least 1, got 1.5"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        DPO(**changes)


@pytest.mark.parametrize(
    ("column", "number", "message"),
    [
        ("prompts", 2, "prompts of the preferences must be whole numbers 0 .. 1, got 2"),
        ("first", 40, "first of the preferences must be whole numbers 0 .. 39, got 40"),
        ("second", 99, "second of the preferences must be whole numbers 0 .. 39, got 99"),
    ],
)
def test_preferences_of_another_task_are_named(column, number, message):
    columns = {"prompts": [0, 0], "first": [1, 2], "second": [3, 4], column: [0, number]}
    preferences = Preferences(**{k: np.array(v) for k, v in columns.items()}, labels=[1.0, 0.0])
    with pytest.raises(ValueError, match=message):
        DPO(steps=1).fit(CAT, REFERENCE, preferences, np.random.default_rng(0))
    with pytest.raises(ValueError, match=message):
        probability_masses(CAT, REFERENCE, preferences)


def test_a_reference_that_excludes_an_answer_is_named():
    log_probs = log_table(CAT, REFERENCE)
    log_probs[1, 0, 2] = -np.inf  # never "soft" at first
    excluding = full_prefix_policy(CAT, log_softmax(log_probs, axis=2))
    prompts, first, second = np.array([0, 1, 1]), np.array([1, 1, 3]), np.array([3, 2, 1])
    preferences = Preferences(prompts, first, second, np.ones(3))
    with pytest.raises(ValueError, match="reference gives probability 0 to an answer of pair 2"):
        DPO(steps=1).fit(CAT, excluding, preferences, np.random.default_rng(0))


def test_probability_masses_need_hard_labels_and_implicit_rewards_a_reference_of_full_support():
    with pytest.raises(ValueError, match="only hard labels"):
        probability_masses(CAT, REFERENCE, some_pairs(10, 17, "soft"))
    log_probs = log_table(CAT, REFERENCE)
    log_probs[1, 0, 0] = -np.inf
    excluding = full_prefix_policy(CAT, log_probs)
    with pytest.raises(ValueError, match=r"probability 0 to 'cat' for 'Describe the dog'"):
        implicit_reward(CAT, REFERENCE, excluding, 0.3)


def test_among_tilted_references_the_loss_is_that_of_a_reward_model():
    """pi_w, the optimum of the rewards w.f, has the Bradley-Terry loss of w: one estimator."""
    features, preferences = one_hot(CAT), some_pairs(60, 21, "soft")
    weights = np.random.default_rng(22).normal(size=features.size)
    tilted = Objective(CAT, REFERENCE, features.rewards(weights), BETA).optimal_policy
    likelihood, _ = bradley_terry_loss(
        weights, features.differences(preferences), preferences.labels
    )
    loss, _, _ = loss_and_gradient(DPO(beta=BETA), tilted, preferences)
    assert loss == pytest.approx(likelihood, abs=1e-12)
    loss, _, _ = loss_and_gradient(DPO(beta=0.4), tilted, preferences)
    assert abs(loss - likelihood) > 1e-3


@pytest.mark.parametrize("loss", [dpo_loss, partial(ipo_loss, beta=0.3)])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.ones((3, 1)), r"labels must be one number per pair, .*\(3, 1\)"),
        (np.ones(2), r"margins and labels must be one number per pair, .*\(3,\) and \(2,\)"),
        (np.ones(1), r"margins and labels must be one number per pair"),
        (np.array([0.0, 2.0, 1.0]), r"labels must lie in \[0, 1\], got 0.0 to 2.0"),
        (np.array([0.0, np.nan, 1.0]), r"labels must lie in \[0, 1\]"),
    ],
)
def test_a_loss_does_not_compare_every_margin_with_every_label(loss, labels, message):
    margins = np.array([1.0, -2.0, 0.5])
    with pytest.raises(ValueError, match=message):
        loss(margins, labels)
    with pytest.raises(ValueError, match="margins must be one number per pair"):
        loss(margins[:, None], np.ones(3))
    value, slope = loss(margins, np.ones(3))
    listed, same = loss(margins.tolist(), [1, 1, 1])
    assert listed == value
    np.testing.assert_array_equal(slope, same)


@pytest.mark.parametrize("beta", [-0.3, 0.0, 1e-9, 1e9, math.inf, math.nan])
def test_betas_at_which_rounding_decides_are_refused(beta):
    for function in (
        lambda: DPO(beta=beta),
        lambda: ipo_loss(np.zeros(1), np.ones(1), beta),
        lambda: implicit_reward(CAT, REFERENCE, REFERENCE, beta),
    ):
        with pytest.raises(ValueError, match=r"beta must lie in \[1e-08, 1e\+08\], got"):
            function()


@pytest.mark.parametrize("loss", ["dpo", "ipo"])
@pytest.mark.parametrize("beta", [1e-8, 1e8])
def test_at_both_ends_of_the_range_the_fit_stays_finite(loss, beta):
    result = DPO(beta=beta, loss=loss, steps=5).fit(
        CAT, REFERENCE, some_pairs(20, 3, "soft"), np.random.default_rng(0)
    )
    assert np.isfinite(result.policy.parameters).all()
    assert np.isfinite([row["loss"] for row in result.rows]).all()
