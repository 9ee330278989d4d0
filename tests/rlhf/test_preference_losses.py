"""Ten preference losses: values, derivatives, minimisers, and the losses that have none.

A small table has one prompt, seven responses and a label for each of the 21 pairs. SciPy searches
its minimisers from several starts. What it finds is compared with closed forms or with the optimum
of the stated objective, which are computed without the package.
"""

import itertools
import math
from functools import cache, partial

import numpy as np
import pytest
import scipy.optimize
from cat import describe_the_cat
from helpers import gradient_by_differences
from scipy.special import expit, log_softmax, logsumexp

from minirl.exact import sequences
from minirl.optimizers import SGD, LinearSchedule
from minirl.rlhf import dpo
from minirl.rlhf.dpo import DPO, mismatched_kl, path_log_probs
from minirl.rlhf.language_model import full_prefix_policy, log_table, network_policy
from minirl.rlhf.objective import Objective
from minirl.rlhf.preference_losses import (
    IPO,
    KTO,
    ORPO,
    PREFERENCE_LOSSES,
    APODown,
    APOZero,
    ChiPO,
    ConservativeDPO,
    DPOLoss,
    PairLogProbs,
    RobustDPO,
    SimPO,
)
from minirl.rlhf.preferences import (
    Annotator,
    FreshPairs,
    Preferences,
    length_biased,
    sample_pairs,
)

LOSSES = {**PREFERENCE_LOSSES, "chi-po, clipped": ChiPO(largest_margin=0.5)}
close = partial(np.testing.assert_allclose, rtol=0)
rng = np.random.default_rng


def some_pairs(count=40, seed=0, labels="soft"):
    random = rng(seed)
    lengths = random.integers(1, 6, size=(2, count))
    log_probs, reference = (-lengths * random.uniform(0.1, 2, size=(2, 2, count))).copy()
    drawn = random.random(count)
    return PairLogProbs(
        log_probs, reference, lengths, drawn if labels == "soft" else (drawn < 0.5) * 1.0, kl=0.2
    )


# ---------------------------------------------------------------- values and derivatives


def printed(name, log_probs, reference, lengths, beta, z):
    """The formula of one pair as it is printed; in each argument, the winner comes first."""
    (a_w, a_l), (h_w, h_l), (n_w, n_l) = log_probs, log_probs - reference, lengths
    x = beta * (h_w - h_l)
    p_w, p_l = math.exp(a_w / n_w), math.exp(a_l / n_l)
    odds = math.log(p_w / (1 - p_w)) - math.log(p_l / (1 - p_l))
    chi = beta * (math.exp(h_w) + h_w - math.exp(h_l) - h_l)
    return {
        "dpo": -math.log(expit(x)),
        "conservative-dpo": -math.log(expit(x)) + 0.1 * x,
        "robust-dpo": -math.log(expit(x)) - 0.1 * x / 0.8,
        "ipo": (h_w - h_l - 1 / (2 * beta)) ** 2,
        "simpo": -math.log(expit(beta * (a_w / n_w - a_l / n_l - 0.5))),
        "chi-po": -math.log(expit(chi)),
        "chi-po, clipped": -math.log(expit(min(max(chi, -0.5), 0.5))),
        "orpo": -a_w / n_w - beta * math.log(expit(odds)),
        "kto": 2 - expit(beta * (h_w - z)) - expit(beta * (z - h_l)),
        "apo-zero": 1 - expit(beta * h_w) + expit(beta * h_l),
        "apo-down": expit(beta * h_w) + 1 - expit(beta * (h_w - h_l)),
    }[name]


def by_hand(name, pairs, beta):
    """The mean over pairs of p times the formula if the first wins, 1 - p times that otherwise."""
    total = 0.0
    for i, label in enumerate(pairs.labels):
        columns = [array[:, i] for array in pairs[:3]]
        total += label * printed(name, *columns, beta, pairs.kl)
        total += (1 - label) * printed(name, *(c[::-1] for c in columns), beta, pairs.kl)
    return total / len(pairs.labels)


@pytest.mark.parametrize("labels", ["soft", "hard"])
@pytest.mark.parametrize("name", LOSSES)
def test_values_are_those_of_the_printed_formulas(name, labels):
    pairs = some_pairs(labels=labels)
    loss = LOSSES[name].evaluate(pairs, 0.7).loss
    assert loss == pytest.approx(by_hand(name, pairs, 0.7), abs=1e-12)
    wrong = pairs._replace(labels=1 - pairs.labels)  # the loser in place of the winner
    assert abs(loss - by_hand(name, wrong, 0.7)) > 1e-2


@pytest.mark.parametrize("labels", ["soft", "hard"])
@pytest.mark.parametrize("name", LOSSES)
def test_derivatives_by_finite_differences(name, labels):
    """They are those of this loss; the derivatives of each other loss fail the same test."""
    pairs = some_pairs(20, 1, labels)

    def value(log_probs):
        return LOSSES[name].evaluate(pairs._replace(log_probs=log_probs), 0.7).loss

    numeric = gradient_by_differences(value, pairs.log_probs)
    close(LOSSES[name].evaluate(pairs, 0.7).d_log_probs, numeric, atol=1e-9)
    for other in LOSSES.keys() - {name}:
        assert np.abs(LOSSES[other].evaluate(pairs, 0.7).d_log_probs - numeric).max() > 1e-4


@pytest.mark.parametrize("name", LOSSES)
def test_no_reference_where_the_formula_has_none_and_no_length_either(name):
    pairs, loss = some_pairs(), LOSSES[name]
    other = loss.evaluate(pairs._replace(reference_log_probs=pairs.reference_log_probs * 1.1), 0.7)
    longer = loss.evaluate(pairs._replace(lengths=pairs.lengths + 1), 0.7)
    further = loss.evaluate(pairs._replace(kl=0.3), 0.7)
    same = loss.evaluate(pairs, 0.7).loss
    assert (other.loss == same) == (name in ("simpo", "orpo"))
    assert (longer.loss == same) == (name not in ("simpo", "orpo"))
    assert (further.loss == same) == (name != "kto")
    assert loss.uses_kl == (name == "kto")


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_log_probabilities_give_finite_numbers(name):
    """A winner of probability 1, a loser that was excluded, and the opposite."""
    log_probs = np.array([[0.0, -900.0], [-900.0, 0.0]])
    pairs = PairLogProbs(log_probs, log_probs[::-1], np.full((2, 2), 3), np.ones(2))
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        found = LOSSES[name].evaluate(pairs, 0.3)
    assert np.isfinite(found.loss)
    assert np.isfinite(found.d_log_probs).all()
    assert found.margins[0] > 0 > found.margins[1]


# ---------------------------------------------------------------- minimisers on a small table

RESPONSES = 7
LENGTHS = np.array([1, 2, 2, 3, 3, 3, 3])
REFERENCE = log_softmax(rng(2).normal(size=RESPONSES))
REWARDS = rng(3).normal(size=RESPONSES)
BETA = 0.6
PAIRS = np.array(list(itertools.combinations(range(RESPONSES), 2))).T
LABELS = expit(REWARDS[PAIRS[0]] - REWARDS[PAIRS[1]])
HARD = (LABELS > 0.5) * 1.0


def on_the_table(loss, logits, labels=LABELS, beta=BETA, reference=REFERENCE, lengths=LENGTHS):
    """The loss of softmax(logits) over all pairs, and its gradient with respect to the logits."""
    log_probs = log_softmax(logits)
    kl = float((np.exp(log_probs) * (log_probs - reference)).sum())
    pairs = PairLogProbs(log_probs[PAIRS], reference[PAIRS], lengths[PAIRS], labels, kl)
    value, slopes, _ = loss.evaluate(pairs, beta)
    on_responses = np.zeros(RESPONSES)
    np.add.at(on_responses, PAIRS, slopes)
    return value, on_responses - np.exp(log_probs) * on_responses.sum()


def minimisers(loss, **options):
    """Log-probabilities (5, N) that SciPy finds from five starts, far from each other."""
    found = []
    for seed in range(5):
        start = REFERENCE + 2 * rng(seed).normal(size=RESPONSES)
        result = scipy.optimize.minimize(
            lambda logits: on_the_table(loss, logits, **options),
            start,
            jac=True,
            method="BFGS",
            options={"gtol": 1e-11, "maxiter": 5000},
        )
        assert np.abs(result.jac).max() < 1e-8
        found.append(log_softmax(result.x))
    return np.array(found)


OPTIMUM = log_softmax(REFERENCE + REWARDS / BETA)


def kl_to_reference(log_probs):
    return float((np.exp(log_probs) * (log_probs - REFERENCE)).sum())


def test_dpo_ends_at_the_optimum_of_the_objective():
    close(minimisers(DPOLoss()), np.tile(OPTIMUM, (5, 1)), atol=1e-6)
    other = minimisers(DPOLoss(), beta=0.7)
    assert np.abs(other - OPTIMUM).max() > 0.1


@pytest.mark.parametrize("flips", [0.1, 0.3])
def test_robust_dpo_undoes_flips_of_the_stated_rate_only(flips):
    flipped = (1 - flips) * LABELS + flips * (1 - LABELS)
    found = minimisers(RobustDPO(flips), labels=flipped)
    close(found, np.tile(OPTIMUM, (5, 1)), atol=1e-5)
    for wrong in (DPOLoss(), ConservativeDPO(flips), RobustDPO(flips / 2)):
        assert np.abs(minimisers(wrong, labels=flipped) - OPTIMUM).max() > 0.1


def test_conservative_dpo_is_finite_and_shrunk_towards_the_reference():
    divergences = []
    for flips in (0.0, 0.1, 0.2, 0.4):
        found = minimisers(ConservativeDPO(flips))
        assert np.ptp(found, axis=0).max() < 1e-5  # one minimiser
        divergences.append(kl_to_reference(found[0]))
    assert divergences[0] == pytest.approx(kl_to_reference(OPTIMUM), abs=1e-6)
    assert (np.diff(divergences) < -0.02).all()
    # On hard labels that contradict each other nowhere it is finite too, and DPO is not.
    assert np.exp(minimisers(ConservativeDPO(0.1), labels=HARD)).min() > 1e-6
    far = [log_softmax(step * REWARDS) for step in (10, 100, 1000)]
    values = [on_the_table(DPOLoss(), logits, labels=HARD)[0] for logits in far]
    assert values[0] > values[1] > values[2]
    assert values[2] < 1e-3


def test_the_conservative_minimiser_is_where_expected_margins_agree():
    """At it, sum over opponents of sigmoid(margin) equals the sum of smoothed labels."""
    found = minimisers(ConservativeDPO(0.2))[0] - REFERENCE
    margins = BETA * (found[:, None] - found)
    smoothed = 0.8 * expit(REWARDS[:, None] - REWARDS) + 0.2 * expit(REWARDS - REWARDS[:, None])
    close(expit(margins).sum(axis=1), smoothed.sum(axis=1), atol=1e-6)
    of_optimum = REWARDS[:, None] - REWARDS
    assert np.abs(expit(of_optimum).sum(axis=1) - smoothed.sum(axis=1)).max() > 0.1


def test_ipo_is_finite_and_tilts_by_win_rates():
    wins = expit(REWARDS[:, None] - REWARDS)
    np.fill_diagonal(wins, 0.0)
    # Stationarity over all pairs: N h - sum h = sum_j (2 p_ij - 1) / (2 beta), without j = i.
    tilt = (2 * wins - 1 + np.eye(RESPONSES)).sum(axis=1) / (2 * BETA * RESPONSES)
    close(minimisers(IPO()), np.tile(log_softmax(REFERENCE + tilt), (5, 1)), atol=1e-6)
    assert np.exp(minimisers(IPO(), labels=HARD)).min() > 1e-3
    assert np.abs(minimisers(IPO()) - OPTIMUM).max() > 0.1


def length_tilted(lengths, beta):
    """exp(|y| (r + c) / beta) with the c for which it sums to 1."""

    def log_total(c):
        return logsumexp(lengths * (REWARDS + c) / beta)

    return lengths * (REWARDS + scipy.optimize.brentq(log_total, -50, 50, xtol=1e-13)) / beta


def test_simpo_ignores_the_reference_and_tilts_by_length_times_reward():
    expected = np.tile(length_tilted(LENGTHS, 2.0), (5, 1))
    free = SimPO(gamma_over_beta=0.0)
    close(minimisers(free, beta=2.0), expected, atol=1e-5)
    uniform = np.full(RESPONSES, -math.log(RESPONSES))
    close(minimisers(free, beta=2.0, reference=uniform), expected, atol=1e-5)
    for wrong in (
        minimisers(free, beta=2.0, lengths=np.ones(RESPONSES)),
        minimisers(SimPO(gamma_over_beta=0.5), beta=2.0),
    ):
        assert np.abs(wrong - expected).max() > 0.1


def test_orpo_is_finite_from_every_start_and_ignores_the_reference():
    found = minimisers(ORPO(), beta=0.5)
    assert np.ptp(found, axis=0).max() < 1e-5
    assert np.exp(found).min() > 1e-3
    uniform = np.full(RESPONSES, -math.log(RESPONSES))
    close(minimisers(ORPO(), beta=0.5, reference=uniform), found, atol=1e-5)
    assert np.abs(minimisers(ORPO(), beta=1.0) - found).max() > 0.05


def test_orpo_without_its_second_term_fits_the_winners():
    """beta -> 0: the mean of -log P(winner) / |winner|, whose minimiser is a ratio of counts."""
    wins = expit(REWARDS[:, None] - REWARDS)
    counts = (wins.sum(axis=1) - 0.5) / LENGTHS
    found = minimisers(ORPO(), beta=1e-9)
    close(np.exp(found), np.tile(counts / counts.sum(), (5, 1)), atol=1e-6)
    assert np.abs(np.exp(minimisers(ORPO(), beta=0.5)) - counts / counts.sum()).max() > 0.03


@cache
def chi_optimum(chi_weight):
    """argmax of E[r] - beta (KL + chi_weight E_ref[(ratio - 1)^2] / 2), by SciPy."""
    reference = np.exp(REFERENCE)

    def objective(logits):
        log_probs = log_softmax(logits)
        probs = np.exp(log_probs)
        chi = (reference * (probs / reference - 1) ** 2).sum() / 2
        divergence = (probs * (log_probs - REFERENCE)).sum() + chi_weight * chi
        return -(probs @ REWARDS - BETA * divergence)

    result = scipy.optimize.minimize(objective, REFERENCE, method="BFGS", options={"gtol": 1e-9})
    return log_softmax(result.x)


def test_chi_po_ends_at_the_optimum_with_a_chi_squared_penalty():
    found = minimisers(ChiPO())
    close(found, np.tile(chi_optimum(1.0), (5, 1)), atol=1e-4)
    # The same by stationarity: beta (ratio + log ratio) = r + c.
    ratio = np.exp(found[0] - REFERENCE)
    constants = BETA * (ratio + np.log(ratio)) - REWARDS
    assert np.ptp(constants) < 1e-6
    for weight in (0.0, 0.5):  # pi* of the KL alone, and half of the penalty
        assert np.abs(found - chi_optimum(weight)).max() > 0.05
    close(chi_optimum(0.0), OPTIMUM, atol=1e-4)


# ---------------------------------------------------------------- losses without a minimiser


def worst_cut(labels, flips):
    """The largest mean label of one set of responses against the others, minus 1 - flips."""
    wins = np.zeros((RESPONSES, RESPONSES))
    wins[*PAIRS] = labels
    wins[*PAIRS[::-1]] = 1 - labels
    worst, which = -np.inf, None
    for bits in range(1, 2**RESPONSES - 1):
        inside = np.array([bits >> i & 1 for i in range(RESPONSES)], dtype=bool)
        excess = wins[np.ix_(inside, ~inside)].mean() - (1 - flips)
        if excess > worst:
            worst, which = excess, inside
    return worst, which


def test_robust_dpo_is_unbounded_below_on_hard_labels():
    """Along the logits of one set of responses the loss falls linearly, for ever."""
    worst, inside = worst_cut(HARD, 0.1)
    assert worst == pytest.approx(0.1)
    values = [
        on_the_table(RobustDPO(0.1), REFERENCE + step * inside, labels=HARD)[0]
        for step in (1e3, 2e3, 3e3)
    ]
    share = inside.sum() * (~inside).sum() / len(HARD)
    close(np.diff(values), -BETA * 1e3 * share * 0.1 / 0.8, rtol=1e-9)
    safe = [
        on_the_table(DPOLoss(), REFERENCE + step * inside, labels=HARD)[0] for step in (1e3, 2e3)
    ]
    assert min(safe) >= 0


@pytest.mark.parametrize(
    ("scale", "outside", "unbounded"),
    [(0.3, False, False), (0.5, True, False), (1.0, True, True), (2.0, True, True)],
)
def test_robust_dpo_is_unbounded_exactly_where_a_cut_exceeds_its_range(scale, outside, unbounded):
    """Soft labels of rewards of several scales. One pair outside the range is not enough."""
    labels, flips = expit(scale * (REWARDS[PAIRS[0]] - REWARDS[PAIRS[1]])), 0.1
    assert (np.abs(labels - 0.5).max() > 0.5 - flips) == outside
    worst, inside = worst_cut(labels, flips)
    assert (worst > 0) == unbounded
    steps = [
        on_the_table(RobustDPO(flips), REFERENCE + step * inside, labels=labels)[0]
        for step in (1e4, 2e4)
    ]
    assert (steps[1] < steps[0]) == unbounded
    if not unbounded:
        assert np.ptp(minimisers(RobustDPO(flips), labels=labels), axis=0).max() < 1e-3


def descend(loss, start=REFERENCE, steps=10_000, rate=2.0):
    """Log-probabilities (3, N) after 10, 30 and 100 % of the steps of gradient descent."""
    logits, kept = start, []
    for step in range(1, steps + 1):
        logits = logits - rate * on_the_table(loss, logits)[1]
        if step in (steps // 10, steps * 3 // 10, steps):
            kept.append(log_softmax(logits))
    return np.array(kept)


WIN_SHARES = (expit(REWARDS[:, None] - REWARDS).sum(axis=1) - 0.5) / (RESPONSES - 1)
LOSERS = WIN_SHARES < 0.5


@pytest.mark.parametrize("loss", [KTO(), APOZero()], ids=["kto", "apo-zero"])
def test_kto_and_apo_zero_have_no_minimiser(loss):
    """Along descent, the responses that lose more often than they win vanish, ever further."""
    path = descend(loss)
    assert LOSERS.sum() == 3
    assert (np.diff(path[:, LOSERS], axis=0) < -0.7).all()
    assert (path[-1] - OPTIMUM < -4)[LOSERS].all()
    assert path[-1, ~LOSERS].max() > math.log(0.6)
    safe = descend(DPOLoss())  # the control: DPO stops at the optimum
    close(safe[1:], np.tile(OPTIMUM, (2, 1)), atol=1e-3)


def test_the_loss_of_kto_is_linear_in_each_sigmoid_so_that_win_shares_decide():
    """mean over pairs = sum over responses of w + (1 - 2 w) sigmoid(beta (h - z)), scaled."""
    logits, z = rng(5).normal(size=RESPONSES), 2.0
    log_probs = log_softmax(logits)
    pairs = PairLogProbs(log_probs[PAIRS], REFERENCE[PAIRS], LENGTHS[PAIRS], LABELS, z)
    gate = expit(BETA * (log_probs - REFERENCE - z))
    expected = (WIN_SHARES + (1 - 2 * WIN_SHARES) * gate).sum() * 2 / RESPONSES
    assert KTO().evaluate(pairs, BETA).loss == pytest.approx(expected, abs=1e-12)
    shifted = (WIN_SHARES + (1 - 2 * WIN_SHARES) * expit(BETA * (log_probs - REFERENCE))).sum()
    assert abs(expected - shifted * 2 / RESPONSES) > 1e-3
    pairs = pairs._replace(kl=0.0)
    assert KTO().evaluate(pairs, BETA).loss == APOZero().evaluate(pairs, BETA).loss


def apo_down_limit(survivor):
    """The loss where one response has probability 1 and the others vanish in order of reward."""
    wins = expit(REWARDS[:, None] - REWARDS)
    others = [y for y in range(RESPONSES) if y != survivor]
    total = WIN_SHARES[survivor] * (RESPONSES - 1) * expit(-BETA * REFERENCE[survivor])
    total += sum(1 - wins[survivor, y] for y in others)
    total += sum(min(wins[a, b], wins[b, a]) for a, b in itertools.combinations(others, 2))
    return total / len(LABELS)


def test_apo_down_ends_at_one_response_that_need_not_be_the_best():
    """It lowers winners too: everything but one response vanishes, the best response included."""
    path = descend(APODown())
    survivor = int(path[-1].argmax())
    assert survivor == REFERENCE.argmax() != REWARDS.argmax()
    assert (np.diff(np.delete(path, survivor, axis=1), axis=0) < -0.7).all()
    value = on_the_table(APODown(), path[-1])[0]
    assert 0 < value - apo_down_limit(survivor) < 0.02
    assert apo_down_limit(int(REWARDS.argmax())) - value > 0.01  # worse than what it reached


# ---------------------------------------------------------------- the loop, tables and networks

CAT = describe_the_cat()
CAT_REFERENCE = full_prefix_policy(CAT, log_softmax(rng(0).normal(size=(2, 13, 4)), axis=2))
MODELS = {
    "table": full_prefix_policy(CAT, log_softmax(rng(1).normal(size=(2, 13, 4)), axis=2)),
    "network": network_policy(CAT, rng(1), hidden_sizes=(5,)),
}


def cat_preferences(count=60, seed=4):
    random = rng(seed)
    pairs = sample_pairs(CAT, CAT_REFERENCE, count, random)
    return Preferences(pairs.prompts, pairs.first, pairs.second, random.random(count))


def parts(preferences):
    """Paths of both responses, and their log-probabilities (2, M) under the reference."""
    both = [CAT.paths(preferences.prompts, y) for y in (preferences.first, preferences.second)]
    return *both, np.stack([path_log_probs(CAT_REFERENCE, paths)[0] for paths in both])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("model", MODELS)
def test_the_gradient_with_respect_to_the_parameters(model, name):
    """Along random directions, for a table and for a network; with lengths from the paths."""
    preferences, policy = cat_preferences(), MODELS[model]
    arguments = *parts(preferences), preferences.labels, 0.2
    method = DPO(loss=LOSSES[name], beta=0.7)
    loss, gradient, margins = method.loss_and_gradient(policy, *arguments)
    both = np.stack([preferences.first, preferences.second])
    log_probs = sequences.response_log_probs(log_table(CAT, policy))[preferences.prompts, both]
    lengths = CAT.response_lengths[both]
    pairs = PairLogProbs(log_probs, arguments[2], lengths, preferences.labels, 0.2)
    assert loss == pytest.approx(by_hand(name, pairs, 0.7), abs=1e-10)
    close(margins, LOSSES[name].evaluate(pairs, 0.7).margins, atol=1e-10)
    for direction in (rng(0).normal(size=gradient.size), gradient / np.linalg.norm(gradient)):

        def value(step, direction=direction):
            moved = policy.with_parameters(policy.parameters + step * direction)
            return method.loss_and_gradient(moved, *arguments)[0]

        numeric = (value(1e-5) - value(-1e-5)) / 2e-5
        assert gradient @ direction == pytest.approx(numeric, abs=1e-6 * (1 + abs(numeric)))
    assert numeric > 1e-4  # along the gradient, where its negative would fail


def test_a_name_is_the_value_and_dpo_and_ipo_are_what_they_were():
    preferences = cat_preferences()
    for name, loss in PREFERENCE_LOSSES.items():
        by_name, by_value = (
            DPO(loss=one, steps=4).fit(CAT, CAT_REFERENCE, preferences, rng(0)).policy
            for one in (name, loss)
        )
        assert np.array_equal(by_name.parameters, by_value.parameters)
        assert not np.array_equal(by_name.parameters, CAT_REFERENCE.parameters)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", PREFERENCE_LOSSES)
def test_a_short_fit_lowers_each_loss(model, name):
    preferences = cat_preferences()
    rows = (
        DPO(loss=name, steps=30, learning_rate=0.02)
        .fit(CAT, MODELS[model], preferences, rng(0))
        .rows
    )
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_the_minimiser_of_a_whole_table_by_the_loop():
    """chi-PO and SimPO, fitted token by token, end where the formulas say."""
    everything = np.array([(x, a, b) for x in range(2) for a in range(40) for b in range(a)]).T
    utilities = CAT.utilities
    prompts, first, second = everything
    labels = expit(utilities[prompts, first] - utilities[prompts, second])
    preferences = Preferences(prompts, first, second, labels)

    def fitted(loss, beta):
        method = DPO(
            loss=loss, beta=beta, steps=400, learning_rate=LinearSchedule(0.2), minibatch_size=1560
        )
        policy = method.fit(CAT, CAT_REFERENCE, preferences, rng(0)).policy
        return sequences.response_log_probs(log_table(CAT, policy))

    log_reference = sequences.response_log_probs(log_table(CAT, CAT_REFERENCE))
    found = fitted(ChiPO(), 0.6)
    ratio = np.exp(found - log_reference)
    constants = 0.6 * (ratio + np.log(ratio)) - utilities
    close(constants - constants.mean(axis=1, keepdims=True), 0, atol=0.02)
    found, lengths = fitted(SimPO(gamma_over_beta=0.0), 2.0), CAT.response_lengths
    constants = 2.0 * found / lengths - utilities
    close(constants - constants.mean(axis=1, keepdims=True), 0, atol=0.02)
    not_it = 2.0 * found - utilities  # without the lengths
    assert np.ptp(not_it, axis=1).min() > 1


# ---------------------------------------------------------------- KTO's estimate of the KL


def test_the_estimate_of_the_kl_pairs_each_prompt_with_the_next_response():
    preferences, policy = cat_preferences(8), MODELS["table"]
    log_ratio = np.subtract(
        *(sequences.response_log_probs(log_table(CAT, m)) for m in (policy, CAT_REFERENCE))
    )
    prompts, responses = [*preferences.prompts] * 2, [*preferences.first, *preferences.second]
    ratios = [log_ratio[prompts[i], responses[(i + 1) % 16]] for i in range(16)]
    found = mismatched_kl(CAT, policy, CAT_REFERENCE, preferences)
    assert found == pytest.approx(max(0, np.mean(ratios)), abs=1e-12)
    reverse = mismatched_kl(CAT, CAT_REFERENCE, policy, preferences)
    assert reverse == pytest.approx(max(0, -np.mean(ratios)), abs=1e-12)
    assert min(found, reverse) == 0 < max(found, reverse)
    matched = [log_ratio[prompts[i], responses[i]] for i in range(16)]
    assert abs(np.mean(matched) - np.mean(ratios)) > 0.01


def test_no_derivative_is_taken_of_the_estimate():
    """The gradient is that of the loss with z held fixed, not that of the loss with z following."""
    preferences, policy, reference = cat_preferences(), MODELS["network"], CAT_REFERENCE
    if mismatched_kl(CAT, policy, reference, preferences) == 0:
        policy, reference = reference, policy
    method, direction = DPO(loss="kto", beta=1.0), rng(7).normal(size=policy.parameters.size)
    first, second, _ = parts(preferences)
    at_reference = np.stack([path_log_probs(reference, paths)[0] for paths in (first, second)])

    def value(step, follow):
        moved = policy.with_parameters(policy.parameters + step * direction)
        z = mismatched_kl(CAT, moved if follow else policy, reference, preferences)
        assert z > 0
        return method.loss_and_gradient(moved, first, second, at_reference, preferences.labels, z)

    slope = value(0, follow=False)[1] @ direction
    fixed, following = (
        (value(1e-5, follow)[0] - value(-1e-5, follow)[0]) / 2e-5 for follow in (False, True)
    )
    assert slope == pytest.approx(fixed, abs=1e-6)
    assert abs(slope - following) > 1e-3


def test_the_fit_of_kto_uses_the_estimate_of_each_minibatch(monkeypatch):
    asked, seen = [], []

    def watched(task, policy, reference, preferences):
        asked.append((policy, reference, len(preferences)))
        return 0.1 * len(asked)

    class Recorded(KTO):
        def evaluate(self, pairs, beta):
            seen.append(pairs.kl)
            return super().evaluate(pairs, beta)

    monkeypatch.setattr(dpo, "mismatched_kl", watched)
    method = DPO(loss=Recorded(), steps=5, minibatch_size=20, learning_rate=0.5)
    method.fit(CAT, CAT_REFERENCE, cat_preferences(), rng(0))
    close(seen, [0.1, 0.2, 0.3, 0.4, 0.5], atol=1e-12)
    assert asked[0][:2] == (CAT_REFERENCE, CAT_REFERENCE)
    assert asked[1][0] is not CAT_REFERENCE
    assert {count for _, _, count in asked} == {20}
    DPO(steps=2).fit(CAT, CAT_REFERENCE, cat_preferences(), rng(0))
    assert len(asked) == 5  # other losses do not compute it


# ---------------------------------------------------------------- online pairs


def expected_online_gradient(policy, pair_policy, loss, beta=BETA):
    """Expected gradient on pairs drawn from `pair_policy`, by enumeration of all pairs."""
    log_probs = sequences.response_log_probs(log_table(CAT, policy))
    log_ratio = log_probs - sequences.response_log_probs(log_table(CAT, CAT_REFERENCE))
    drawn = np.exp(sequences.response_log_probs(log_table(CAT, pair_policy)))
    weights = drawn[:, :, None] * drawn[:, None, :]
    weights[:, range(40), range(40)] = 0  # identical pairs are drawn again, with another prompt
    weights /= weights.sum()
    p = expit(CAT.utilities[:, :, None] - CAT.utilities[:, None, :])
    margins = beta * (log_ratio[:, :, None] - log_ratio[:, None, :])
    slopes = beta * weights * (expit(margins) - p)
    coefficients = slopes.sum(axis=2) - slopes.sum(axis=1)
    return sequences.score_sum(log_table(CAT, policy), coefficients).ravel()


def test_online_dpo_agrees_with_its_expectation():
    """Mean gradient of 400 draws of 50 pairs; z-scores along random directions."""
    policy, annotator, seen = MODELS["table"], Annotator(), []
    fresh = FreshPairs(CAT, annotator, CAT.utilities, 50)
    random, method = rng(11), DPO(beta=BETA)
    for _ in range(400):
        preferences = fresh.draw(policy, random)
        seen.append(
            method.loss_and_gradient(policy, *parts(preferences), preferences.labels)[1][:-4]
        )
    directions = rng(12).normal(size=(seen[0].size, 12))
    projected = np.array(seen) @ directions

    def z_scores(expected):
        error = projected.std(axis=0, ddof=1) / math.sqrt(len(projected))
        return np.abs((projected.mean(axis=0) - expected @ directions) / error)

    assert z_scores(expected_online_gradient(policy, policy, "dpo")).max() < 4
    offline = expected_online_gradient(policy, CAT_REFERENCE, "dpo")
    assert z_scores(offline).max() > 10


def test_the_optimum_is_a_fixed_point_of_online_dpo():
    optimum = Objective(CAT, CAT_REFERENCE, CAT.utilities, BETA).optimal_policy
    assert np.abs(expected_online_gradient(optimum, optimum, "dpo")).max() < 1e-12
    assert np.abs(expected_online_gradient(optimum, optimum, "dpo", beta=0.8)).max() > 1e-3


def test_online_pairs_are_drawn_from_the_current_policy_and_used_once(monkeypatch):
    drawn, used = [], []
    draw, step = FreshPairs.draw, SGD.step

    def watched_draw(self, policy, random):
        drawn.append((policy, draw(self, policy, random)))
        return drawn[-1][1]

    class Watched(SGD):
        def step(self, *arguments):
            used.append(arguments[1])
            return step(self, *arguments)

    monkeypatch.setattr(FreshPairs, "draw", watched_draw)
    fresh = FreshPairs(CAT, Annotator(), CAT.utilities, 20)
    method = DPO(steps=6, minibatch_size=10, optimizer=Watched(), learning_rate=1.0)
    result = method.fit(CAT, CAT_REFERENCE, fresh, rng(0))
    assert [np.array_equal(policy.parameters, used[2 * i]) for i, (policy, _) in enumerate(drawn)]
    assert len(drawn) == 3  # 6 steps of 10 pairs
    assert drawn[0][0] is CAT_REFERENCE
    assert not np.array_equal(drawn[1][0].parameters, CAT_REFERENCE.parameters)
    assert len(result.rows) == 6
    assert all(set(pairs.labels) <= {0, 1} for _, pairs in drawn)
    again = method.fit(CAT, CAT_REFERENCE, fresh, rng(0)).policy
    assert np.array_equal(again.parameters, result.policy.parameters)


# ---------------------------------------------------------------- annotators who like long answers


def test_lengths_count_tokens_with_eos():
    lengths = CAT.response_lengths
    for text, tokens in (("", 1), ("cat", 2), ("soft cat", 3)):
        assert lengths[CAT.response(text)] == tokens
    assert lengths[CAT.response("soft soft cat", cut=True)] == 3  # cut: no EOS


def test_a_length_biased_annotator_judges_by_utility_plus_length():
    biased = length_biased(CAT, CAT.utilities, 0.5)
    short, long = CAT.response("cat"), CAT.response("soft cat")
    gained = biased - CAT.utilities
    assert gained[0, long] - gained[0, short] == pytest.approx(0.5)
    pairs = sample_pairs(CAT, CAT_REFERENCE, 400, rng(0))
    lengths = CAT.response_lengths
    longer = lengths[pairs.first] - lengths[pairs.second]
    plain, labels = (Annotator().soft(pairs, u).labels for u in (CAT.utilities, biased))
    close(np.log(labels / (1 - labels)) - np.log(plain / (1 - plain)), 0.5 * longer, atol=1e-9)
    optimum = Objective(CAT, CAT_REFERENCE, biased, BETA).optimal_policy
    unbiased = Objective(CAT, CAT_REFERENCE, CAT.utilities, BETA).optimal_policy
    means = [
        (np.exp(sequences.response_log_probs(log_table(CAT, policy))) * lengths).sum() / 2
        for policy in (unbiased, optimum)
    ]
    assert means[1] > means[0] + 0.1


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RobustDPO(0.5), r"flips must lie in \[0, 0.5\), got 0.5"),
        (lambda: ConservativeDPO(-0.1), r"flips must lie in \[0, 0.5\), got -0.1"),
        (lambda: SimPO(-1.0), "gamma_over_beta must be .* got -1.0"),
        (lambda: ChiPO(0.0), "largest_margin must be .* got 0.0"),
        (lambda: DPO(loss=3), "loss must be one of dpo, .* got 3"),
        (lambda: FreshPairs(CAT, Annotator(), CAT.utilities, 0), "count must be .* got 0"),
        (
            lambda: DPO(minibatch_size=7).fit(
                CAT, CAT_REFERENCE, FreshPairs(CAT, Annotator(), CAT.utilities, 20), rng(0)
            ),
            "minibatch_size must divide the 20 fresh pairs, got 7",
        ),
        (lambda: length_biased(CAT, CAT.utilities[:, :5], 0.5), "utilities must have shape"),
        (lambda: length_biased(CAT, CAT.utilities, math.inf), "per_token must be a finite number"),
        (
            lambda: FreshPairs(CAT, Annotator(), CAT.utilities * math.nan, 5),
            "utilities must consist of finite numbers, got nan",
        ),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
