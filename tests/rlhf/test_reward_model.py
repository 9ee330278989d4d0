"""The reward model against loops over words, derivatives, and rewards that are known."""

import functools
import math
import re

import numpy as np
import pytest
import scipy.optimize
from cat import describe_the_cat

from minirl.checks import finite_difference
from minirl.envs.arithmetic import ANSWERS, DIGITS, arithmetic
from minirl.rlhf.language_model import full_prefix_policy
from minirl.rlhf.preferences import Annotator, Preferences, sample_pairs
from minirl.rlhf.reward_model import (
    RewardModel,
    accuracy,
    bag_of_words,
    bayes_ceiling,
    bradley_terry_hessian,
    bradley_terry_loss,
    calibration,
    fit_reward_model,
    one_hot,
)
from minirl.rlhf.sft import fine_tune, sample_demonstrations

CAT = describe_the_cat()
NOUNS = ("cat", "dog")
SHAPE, MODEL = (2, CAT.num_responses), RewardModel(one_hot(CAT), np.ones(80))


def cat_pairs(rng, count=400):
    logits = rng.standard_normal((2, CAT.num_contexts, 4))
    return sample_pairs(CAT, full_prefix_policy(CAT, logits), count, rng)


@functools.cache
def arithmetic_pairs(count=3000):
    task, rng = arithmetic(), np.random.default_rng(0)
    reference = fine_tune(task, sample_demonstrations(task, 2000, rng)).policy
    return sample_pairs(task, reference, count, rng)


def preferences_between(*rows):
    """Rows of (prompt, first, second, label)."""
    return Preferences(*(np.array(column) for column in zip(*rows, strict=True)))


def gradient_norm(model, preferences, ridge):
    differences = model.features.differences(preferences)
    _, gradient = bradley_terry_loss(model.weights, differences, preferences.labels, ridge)
    return np.linalg.norm(gradient)


# ------------------------------------------------------------ features


def test_features_of_two_answers_by_hand():
    task = arithmetic()
    features = bag_of_words(task)
    responses = [task.response("A: 8 8 :)"), task.response(":) 4 sorry 9 :)", cut=True)]
    found = features(np.array([2, 0]), np.array(responses))
    assert features.size == 21
    first, second = np.zeros(21), np.zeros(21)
    first[2 * 4 + DIGITS.index("8")] = 1  # said twice, present once
    first[16:] = [1, 0, 0, 1, 0]  # A:  Great_question!  sorry  :)  cut
    second[[0 * 4 + DIGITS.index("4"), 0 * 4 + DIGITS.index("9")]] = 1
    second[16:] = [0, 0, 1, 2, 1]
    np.testing.assert_array_equal(found, [first, second])


def test_features_against_a_loop_over_all_answers():
    found = bag_of_words(CAT, NOUNS)
    prompts, responses = (index.ravel() for index in np.indices(SHAPE))
    for prompt, response, row in zip(prompts, responses, found(prompts, responses), strict=True):
        words = CAT.words(response)
        own = [[float(noun in words) * (prompt == x) for noun in NOUNS] for x in range(2)]
        assert list(row) == [*own[0], *own[1], words.count("soft"), len(words) == 3]


@pytest.mark.parametrize("features", [bag_of_words(CAT, NOUNS), one_hot(CAT)])
def test_the_reward_table_is_features_times_weights(features):
    rng = np.random.default_rng(0)
    weights, offsets = rng.standard_normal(features.size), rng.standard_normal(2)
    prompts, responses = (index.ravel() for index in np.indices(SHAPE))
    table = RewardModel(features, weights, offsets).rewards()
    expected = (features(prompts, responses) @ weights).reshape(SHAPE) + offsets[:, None]
    np.testing.assert_allclose(table, expected, atol=1e-14)


def test_one_hot_weights_are_the_table():
    weights = np.arange(80.0)
    np.testing.assert_array_equal(
        RewardModel(one_hot(CAT), weights).rewards(), weights.reshape(SHAPE)
    )


# ------------------------------------------------------------ the loss


def a_problem(rng, pairs=30, size=5):
    return rng.normal(size=(pairs, size)), rng.uniform(size=pairs)


def test_the_loss_against_a_loop():
    rng = np.random.default_rng(1)
    differences, labels = a_problem(rng)
    weights, ridge = rng.normal(size=5), 0.7
    p = 1 / (1 + np.exp(-(differences @ weights)))
    losses = -labels * np.log(p) - (1 - labels) * np.log(1 - p)
    loss, _ = bradley_terry_loss(weights, differences, labels, ridge)
    expected = (losses.sum() + ridge / 2 * weights @ weights) / 30
    assert loss == pytest.approx(expected, rel=1e-14)


def test_gradient_and_hessian_against_finite_differences():
    rng = np.random.default_rng(2)
    differences, labels = a_problem(rng)
    for ridges in ((), (2.0,)):  # no ridge, if nothing else is asked for
        at, direction = rng.normal(size=5), rng.normal(size=5)
        slope, bend = (
            finite_difference(
                lambda w, part=part, ridges=ridges: bradley_terry_loss(
                    w, differences, labels, *ridges
                )[part],
                at,
                direction,
            )
            for part in (0, 1)
        )
        _, gradient = bradley_terry_loss(at, differences, labels, *ridges)
        assert gradient @ direction == pytest.approx(float(slope), abs=1e-7)
        hessian = bradley_terry_hessian(at, differences, labels, *ridges)
        np.testing.assert_allclose(hessian @ direction, bend, atol=1e-7)


def test_huge_margins_stay_finite():
    """A margin of 1000 costs nothing with label 1 and 1000 nats with label 0."""
    differences, labels = np.array([[1.0], [1.0]]), np.array([1.0, 0.0])
    for sign in (1, -1):
        loss, gradient = bradley_terry_loss(np.array([sign * 1000.0]), differences, labels)
        assert loss == pytest.approx(500, rel=1e-15)
        np.testing.assert_allclose(gradient, [sign * 0.5], rtol=1e-15)


# ------------------------------------------------------------ the fit


@pytest.mark.parametrize("ridge", [0.0, 1e-9])
def test_soft_labels_give_a_linear_reward_back(ridge):
    features = bag_of_words(arithmetic())
    truth = RewardModel(features, np.random.default_rng(3).normal(size=21))
    preferences = Annotator().soft(arithmetic_pairs(), truth.rewards())
    found = fit_reward_model(features, preferences, ridge=ridge)
    np.testing.assert_allclose(found.weights, truth.weights, atol=1e-6)


@pytest.mark.parametrize("ridge", [1e-6, 0.1, 10.0, 1e4])
@pytest.mark.parametrize("count", [1, 10, 400])
def test_the_fit_is_a_minimum_whatever_the_ridge(ridge, count):
    """The loss is convex: where its gradient vanishes, it is least."""
    rng = np.random.default_rng(5)
    pairs = cat_pairs(rng, count)
    for preferences in (
        Annotator(0.2).soft(pairs, CAT.utilities),
        Annotator(0.2).hard(pairs, CAT.utilities, rng),
    ):
        for features in (bag_of_words(CAT, NOUNS), one_hot(CAT)):
            model = fit_reward_model(features, preferences, ridge=ridge)
            assert gradient_norm(model, preferences, ridge) < 1e-7


def test_a_search_cut_short_is_an_error(monkeypatch):
    minimize = scipy.optimize.minimize

    def one_step(*args, options, **kwargs):
        return minimize(*args, options=options | {"maxiter": 1}, **kwargs)

    monkeypatch.setattr(scipy.optimize, "minimize", one_step)
    preferences = Annotator().soft(cat_pairs(np.random.default_rng(8)), CAT.utilities)
    with pytest.raises(RuntimeError, match="did not converge: gradient norm .* after 1 steps"):
        fit_reward_model(bag_of_words(CAT, NOUNS), preferences)


NOT_LOG_PROBS = "must be log-probabilities of shape \\(2, 40\\)"


@pytest.mark.parametrize(
    ("message", "function", "arguments"),
    [
        ("prompts must be .* 0 .. 1, got 2", bag_of_words(CAT, NOUNS), ([0, 2], [1, 1])),
        ("prompts must be .* 0 .. 1, got -1", bag_of_words(CAT, NOUNS), ([-1, 0], [1, 1])),
        ("responses must be .* 0 .. 39, got 40", bag_of_words(CAT, NOUNS), ([0, 0], [1, 40])),
        ("by_prompt holds '4', the task's words are .'cat', 'dog'", bag_of_words, (CAT,)),
        ("bins must be .* at least 1, got 0", calibration, ([0.5, 0.5], [0.5, 0.5], 0)),
        (NOT_LOG_PROBS, MODEL.centred, (np.full((2, 13, 4), -math.log(4)),)),  # of tokens
        (NOT_LOG_PROBS, MODEL.centred, (np.full((1, 40), -math.log(40)),)),
        (NOT_LOG_PROBS, MODEL.centred, (np.full((2, 40), 1 / 40),)),  # probabilities
        *(
            ("^labels must", bayes_ceiling, (labels,))
            for labels in ([5, -3], [0.5, math.nan], [[0.5]], [], 0.5)
        ),
    ],
)
def test_bad_arguments_are_named(message, function, arguments):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


def test_a_negative_ridge_is_refused():
    with pytest.raises(ValueError, match="ridge must be a finite number of at least 0, got -0.1"):
        fit_reward_model(one_hot(CAT), preferences_between((0, 1, 2, 0.5)), ridge=-0.1)


# ------------------------------------------------------------ what preferences can't determine


def chain(label=0.5):
    """Every answer linked to its neighbour: the fewest pairs that connect all answers."""
    return [(x, y, y + 1, label) for x in range(2) for y in range(SHAPE[1] - 1)]


def test_centring_shifts_each_prompt_to_mean_0_under_the_reference():
    rng = np.random.default_rng(10)
    preferences = Annotator().soft(cat_pairs(rng), CAT.utilities)
    model = RewardModel(bag_of_words(CAT, NOUNS), rng.normal(size=6), offsets=np.array([1.0, 9.0]))
    reference = np.log(rng.dirichlet(np.ones(SHAPE[1]), size=2))
    centred = model.centred(reference)
    for x in range(2):
        mean = sum(math.exp(reference[x, y]) * centred.rewards()[x, y] for y in range(SHAPE[1]))
        assert mean == pytest.approx(0, abs=1e-13)
        assert np.ptp(centred.rewards()[x] - model.rewards()[x]) < 1e-13
    np.testing.assert_array_equal(
        centred.probabilities(preferences), model.probabilities(preferences)
    )


def test_a_missing_link_is_counted_and_adding_it_cures():
    """Without two links, the answers of the first prompt fall into three parts."""
    labels = np.random.default_rng(11).uniform(0.1, 0.9, size=78)
    rows = [(x, y, z, label) for (x, y, z, _), label in zip(chain(), labels, strict=True)]
    broken = preferences_between(*[row for i, row in enumerate(rows) if i not in (10, 20)])
    message = "they determine 76 of the 78 directions .*, and no pair depends on 2 of them"
    with pytest.raises(ValueError, match=message):
        fit_reward_model(one_hot(CAT), broken, ridge=0)
    assert gradient_norm(fit_reward_model(one_hot(CAT), broken), broken, 0.1) < 1e-8

    table = fit_reward_model(one_hot(CAT), preferences_between(*rows), ridge=0).rewards()
    logits = np.log(labels / (1 - labels)).reshape(2, -1)
    np.testing.assert_allclose(table[:, :-1] - table[:, 1:], logits, atol=1e-6)
    np.testing.assert_allclose(table.sum(axis=1), 0, atol=1e-10)  # what nothing determines


def test_a_word_never_seen_is_a_missing_direction():
    """With shared features it is words, not answers, that pairs must link."""
    answers = [CAT.response(text) for text in ("", "cat", "soft", "cat cat")]
    seen = [(x, answers[0], answer, 0.4) for x in range(2) for answer in answers[1:]]
    features = bag_of_words(CAT, NOUNS)
    message = "determine 3 of the 6 directions .* and no pair depends on 3"
    with pytest.raises(ValueError, match=message):
        fit_reward_model(features, preferences_between(*seen), ridge=0)
    dog, cut = CAT.response("dog"), CAT.response("dog dog dog", cut=True)
    seen += [(x, answers[0], dog, 0.3) for x in range(2)]
    model = fit_reward_model(features, preferences_between(*seen, (0, dog, cut, 0.7)), ridge=0)
    assert model.rewards()[0, cut] - model.rewards()[0, dog] == pytest.approx(-math.log(7 / 3))
    with pytest.raises(ValueError, match="one-sided: .* explains 1 of 9"):
        fit_reward_model(features, preferences_between(*seen, (0, dog, cut, 1)), ridge=0)


def with_soft_links(rows):
    """Rows that link some answers of a prompt, and what links the rest: labels of 0.5."""
    named = {
        x: sorted({y for prompt, *pair, _ in rows for y in pair if prompt == x}) for x in (0, 1)
    }
    last = SHAPE[1] - 1
    rest = [(x, y, last, 0.5) for x in (0, 1) for y in range(last) if y not in named[x][1:]]
    return preferences_between(*rest, *rows)


@pytest.mark.parametrize(
    ("rows", "agreed"),
    [
        ([(0, 1, 2, 1)], 1),
        ([(0, 1, 2, 0)], 1),
        ([(0, 1, 2, 1), (0, 1, 2, 1), (1, 3, 4, 0)], 3),
        ([(0, 1, 2, 1), (0, 2, 3, 1), (0, 1, 3, 1)], 3),
        ([(0, 1, 2, 1), (0, 2, 3, 1), (0, 3, 2, 1)], 1),  # 2 and 3 contradict each other
    ],
)
def test_one_sided_labels_have_no_maximum(rows, agreed):
    preferences = with_soft_links(rows)
    message = f"one-sided: .* explains {agreed} of {len(preferences)}, so .* ridge > 0"
    with pytest.raises(ValueError, match=message):
        fit_reward_model(one_hot(CAT), preferences, ridge=0)
    assert np.isfinite(fit_reward_model(one_hot(CAT), preferences).rewards()).all()

    contradicted = with_soft_links([*rows, *((x, b, a, label) for x, a, b, label in rows)])
    model = fit_reward_model(one_hot(CAT), contradicted, ridge=0)
    np.testing.assert_allclose(model.rewards(), 0, atol=1e-8)


def test_a_cycle_is_two_sided_though_no_pair_is_contradicted():
    """1 over 2, 2 over 3, 3 over 1: the best is to call them equal. With one label turned, not."""
    cycle = [(0, 1, 2, 1), (0, 2, 3, 1), (0, 3, 1, 1)]
    model = fit_reward_model(one_hot(CAT), with_soft_links(cycle), ridge=0)
    np.testing.assert_allclose(model.rewards(), 0, atol=1e-8)
    turned = with_soft_links([*cycle[:2], (0, 3, 1, 0)])
    with pytest.raises(ValueError, match="explains 3 of"):
        fit_reward_model(one_hot(CAT), turned, ridge=0)


def test_a_soft_label_contradicts_a_hard_one():
    """Preferred once for certain and once with probability 0.4: on average with 0.7."""
    preferences = with_soft_links([(0, 1, 2, 1), (0, 1, 2, 0.4)])
    rewards = fit_reward_model(one_hot(CAT), preferences, ridge=0).rewards()
    assert rewards[0, 1] - rewards[0, 2] == pytest.approx(math.log(7 / 3))


def test_soft_labels_are_never_one_sided():
    sure = preferences_between(*chain(label=1 - 1e-6))
    table = fit_reward_model(one_hot(CAT), sure, ridge=0).rewards()
    assert (np.diff(table) < -5).all()


def test_a_reward_that_is_no_number_is_named():
    weights = np.zeros(80)
    weights[40 + CAT.response("soft dog")] = np.nan
    with pytest.raises(ValueError, match="got nan for .* to 'Describe the dog'"):
        RewardModel(one_hot(CAT), weights).rewards()
    features = bag_of_words(CAT, NOUNS)
    features.shared[CAT.response("soft dog"), 0] = np.nan
    with pytest.raises(ValueError, match="got nan for 'soft dog' to 'Describe the cat'"):
        RewardModel(features, np.zeros(6)).rewards()


# ------------------------------------------------------------ how good is it?


def test_accuracy_by_hand():
    predicted, labels = np.array([0.9, 0.2, 0.5, 0.7]), np.array([1.0, 1.0, 1.0, 0.4])
    assert accuracy(predicted, labels) == pytest.approx((1 + 0 + 0.5 + 0.4) / 4)
    assert accuracy(1 - predicted, labels) == pytest.approx((0 + 1 + 0.5 + 0.6) / 4)


def test_nobody_beats_the_bayes_ceiling_and_the_truth_reaches_it():
    """The true utility knows neither temperature nor flips, and need not."""
    rng = np.random.default_rng(13)
    truth = Annotator(temperature=0.7, flip=0.1).soft(cat_pairs(rng), CAT.utilities)
    ceiling = bayes_ceiling(truth.labels)
    assert 0.6 < ceiling < 0.9
    true_utility = RewardModel(one_hot(CAT), CAT.utilities.ravel())
    for predicted in (truth.labels, true_utility.probabilities(truth)):
        assert accuracy(predicted, truth.labels) == pytest.approx(ceiling, rel=1e-14)
    noisy = truth.labels + 0.3 * rng.standard_normal(len(truth))
    assert accuracy(np.clip(noisy, 0, 1), truth.labels) < ceiling


def test_the_model_of_the_arithmetic_task_comes_close_to_the_ceiling():
    """Courtesy is concave: a linear model can't be perfect, and more pairs do not help."""
    task = arithmetic()
    pairs, annotator = arithmetic_pairs(), Annotator()
    soft = annotator.soft(pairs, task.utilities)
    hard = annotator.hard(pairs, task.utilities, np.random.default_rng(14))
    model = fit_reward_model(bag_of_words(task), hard)
    predicted = model.probabilities(soft)
    ceiling = bayes_ceiling(soft.labels)
    assert ceiling - 0.02 < accuracy(predicted, soft.labels) < ceiling
    assert calibration(predicted, soft.labels).error < 0.03
    for x, answer in enumerate(ANSWERS.values()):
        weights = model.weights[:16].reshape(4, 4)[x]
        assert DIGITS[weights.argmax()] == answer


def test_calibration_against_a_loop():
    rng = np.random.default_rng(15)
    predicted, labels = rng.uniform(0.2, 1.0, size=300), rng.uniform(size=300)
    predicted[:2] = [1.0, 0.5]
    found = calibration(predicted, labels, bins=5)
    edges = [(0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1.1)]  # nobody says less than 0.2
    error = 0.0
    assert len(found.counts) == 4
    for k, (low, high) in enumerate(edges):
        rows = [i for i in range(300) if low <= predicted[i] < high]
        assert found.counts[k] == len(rows)
        assert found.predicted[k] == pytest.approx(np.mean(predicted[rows]))
        assert found.observed[k] == pytest.approx(np.mean(labels[rows]))
        error += len(rows) / 300 * abs(np.mean(predicted[rows]) - np.mean(labels[rows]))
    assert found.error == pytest.approx(error)


@pytest.mark.parametrize(
    ("predicted", "labels", "message"),
    [
        (
            np.full((3, 1), 0.5),
            np.full(3, 0.5),
            "predicted must be one number per pair, at least one, got shape (3, 1)",
        ),
        (np.full(3, 0.5), np.full(4, 0.5), "one number per pair, got shapes (3,) and (4,)"),
        (np.full((2, 2), 0.5), np.full((2, 2), 0.5), "per pair, at least one, got shape (2, 2)"),
        (np.zeros(0), np.zeros(0), "per pair, at least one, got shape (0,)"),
        (np.array([0.5, 1.5]), np.zeros(2), "predicted must lie in [0, 1], got 0.5 to 1.5"),
        (np.zeros(2), np.array([-1.0, 1.0]), "labels must lie in [0, 1], got -1.0 to 1.0"),
        (np.array([np.nan]), np.zeros(1), "predicted must lie in [0, 1], got nan to nan"),
    ],
)
@pytest.mark.parametrize("judge", [accuracy, calibration])
def test_judges_refuse_what_is_no_probability(judge, predicted, labels, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        judge(predicted, labels)


def test_judges_take_lists():
    assert bayes_ceiling([0.75, 0.25, 0.5]) == pytest.approx(2 / 3)
    assert accuracy([0.9, 0.4], [1, 1]) == 0.5
    assert calibration([0.9, 0.3], [1, 0.3]).error == pytest.approx(0.05)
    tenth = [0.0, 0.099, 0.1]  # ten bins by default
    assert calibration(tenth, tenth).counts.tolist() == [2, 1]


def test_very_many_bins_need_no_memory():
    found = calibration(np.array([0.0, 0.25, 1.0]), np.array([0.5, 0.5, 1.0]), bins=10**15)
    assert found.counts.tolist() == [1, 1, 1]
    assert found.error == pytest.approx(0.25)


@pytest.mark.parametrize("loss", [bradley_terry_loss, bradley_terry_hessian])
@pytest.mark.parametrize("labels", [np.ones((3, 1)), np.ones(1), np.ones(4), np.full(3, 2.0)])
def test_bradley_terry_needs_one_label_per_difference(loss, labels):
    with pytest.raises(ValueError, match="labels must"):
        loss(np.zeros(2), np.ones((3, 2)), labels)
