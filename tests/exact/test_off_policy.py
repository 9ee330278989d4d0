"""Updates from an older policy's samples, against the sum over all responses, token by token."""

import numpy as np
import pytest
import scipy.special
from helpers import every_path

from minirl.exact import sequences
from minirl.exact.groups import clipped_gate, constant_weight_gate, plain_gate
from minirl.exact.off_policy import effective_share, update_moments

RNG = np.random.default_rng(0)
LOG_POLICY, LOG_SAMPLING = scipy.special.log_softmax(RNG.normal(size=(2, 2, 3, 3)), axis=-1)
REWARDS = RNG.normal(size=(2, 7))
BASELINE = np.array([0.3, -0.2])
PATHS = [steps for _, steps in sorted(every_path(2, 2))]
TRUTH = sequences.policy_gradient(LOG_POLICY, LOG_POLICY, REWARDS, 0.0)


def enumerated(weight, baseline=BASELINE):
    """E[g] and E[|g|^2], with weight(token ratios, gain) -> the weights of the tokens."""
    mean, second = np.zeros_like(LOG_POLICY), 0.0
    for x in range(2):
        for y, path in enumerate(PATHS):
            gain = REWARDS[x, y] - baseline[x]
            logs = np.array(
                [[table[x, s, a] for s, a in path] for table in (LOG_POLICY, LOG_SAMPLING)]
            )
            sample = np.zeros_like(LOG_POLICY)
            for (s, a), factor in zip(path, weight(np.exp(logs[0] - logs[1]), gain), strict=True):
                score = -np.exp(LOG_POLICY[x, s])
                score[a] += 1
                sample[x, s] += gain * factor * score
            chance = np.exp(logs[1].sum()) / 2
            mean += chance * sample
            second += chance * (sample**2).sum()
    return mean, second


def ppo(ratios, gain):
    return ratios * (ratios <= 1.3 if gain > 0 else ratios >= 0.8)


CASES = {
    "none": ({}, lambda ratios, _: np.ones_like(ratios)),
    "tokens": ({"token_gate": plain_gate}, lambda ratios, _: ratios),
    "clipped": ({"token_gate": clipped_gate(0.2, 0.3)}, ppo),
    "sequence": (
        {"response_gate": plain_gate},
        lambda ratios, _: np.full_like(ratios, ratios.prod()),
    ),
    "truncated": (
        {"response_gate": constant_weight_gate(0.5)},
        lambda ratios, _: np.full_like(ratios, min(ratios.prod(), 1.5)),
    ),
    "gspo": (
        {"response_gate": plain_gate, "length_root": True},
        lambda ratios, _: np.full_like(ratios, ratios.prod() ** (1 / len(ratios)) / len(ratios)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_moments_are_the_sums_over_all_responses(name):
    options, weight = CASES[name]
    moments = update_moments(LOG_POLICY, REWARDS, BASELINE, log_sampling=LOG_SAMPLING, **options)
    mean, second = enumerated(weight)
    np.testing.assert_allclose(moments.mean, mean, rtol=0, atol=1e-15)
    np.testing.assert_allclose(moments.second_moment, second, rtol=1e-13)
    np.testing.assert_allclose(moments.variance, second - (mean**2).sum(), rtol=1e-12)
    cosine = (mean * TRUTH).sum() / np.linalg.norm(mean) / np.linalg.norm(TRUTH)
    np.testing.assert_allclose(moments.cosine, cosine, rtol=1e-12)
    bias = np.linalg.norm(mean - TRUTH) / np.linalg.norm(TRUTH)
    np.testing.assert_allclose(moments.relative_bias, bias, atol=1e-12)
    for other in CASES.keys() - {name}:
        assert np.abs(mean - enumerated(CASES[other][1])[0]).max() > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_only_the_sequence_ratio_is_unbiased(name):
    """For every baseline: it only changes the variance."""
    options = {"log_sampling": LOG_SAMPLING, **CASES[name][0]}
    for baseline in (0.0, BASELINE, 2.0):
        moments = update_moments(LOG_POLICY, REWARDS, baseline, **options)
        if name == "sequence":
            np.testing.assert_allclose(moments.mean, TRUTH, rtol=0, atol=1e-15)
        else:
            assert moments.relative_bias > 0.05


def test_token_ratios_keep_the_visits_and_the_values_of_the_sampling_policy():
    """E[g] = d_mu(s) pi(a|s) (Q_mu(s, a) - E_pi Q_mu), whatever the baseline."""
    policy = np.exp(LOG_POLICY)

    def surrogate(visits_of, values_of):
        values, _ = sequences.action_values(values_of, values_of, REWARDS, 0.0)
        centred = values - (policy * values).sum(axis=2, keepdims=True)
        return sequences.visitation(visits_of)[:, :, None] * policy * centred

    expected = surrogate(LOG_SAMPLING, LOG_SAMPLING)
    for baseline in (0.0, BASELINE, 5.0):
        moments = update_moments(
            LOG_POLICY, REWARDS, baseline, log_sampling=LOG_SAMPLING, token_gate=plain_gate
        )
        np.testing.assert_allclose(moments.mean, expected, rtol=0, atol=1e-14)
    # Both are needed for the gradient: the visits and the values of the current policy.
    np.testing.assert_allclose(surrogate(LOG_POLICY, LOG_POLICY), TRUTH, rtol=0, atol=1e-14)
    for mixed in (surrogate(LOG_POLICY, LOG_SAMPLING), surrogate(LOG_SAMPLING, LOG_POLICY)):
        assert np.abs(mixed - TRUTH).max() > 0.01


def test_without_correction_a_baseline_moves_the_policy_away_from_the_sampling_policy():
    """A baseline b adds b(x) d_mu(s) (pi(a|s) - mu(a|s)) to the expected update."""

    def mean(baseline):
        return update_moments(LOG_POLICY, REWARDS, baseline, log_sampling=LOG_SAMPLING).mean

    visits = sequences.visitation(LOG_SAMPLING)[:, :, None]
    away = visits * (np.exp(LOG_POLICY) - np.exp(LOG_SAMPLING))
    difference = mean(BASELINE) - mean(0.0)
    np.testing.assert_allclose(difference, BASELINE[:, None, None] * away, rtol=0, atol=1e-15)
    assert np.abs(difference).max() > 0.01


def test_effective_share_is_that_of_the_enumerated_weights():
    first = second = cut_first = cut_second = 0.0
    for x in range(2):
        for path in PATHS:
            mu = np.exp(sum(LOG_SAMPLING[x, s, a] for s, a in path))
            pi = np.exp(sum(LOG_POLICY[x, s, a] for s, a in path))
            ratio, cut = pi / mu, min(pi / mu, 1.5)
            first, second = first + mu / 2 * ratio, second + mu / 2 * ratio**2
            cut_first, cut_second = cut_first + mu / 2 * cut, cut_second + mu / 2 * cut**2
    np.testing.assert_allclose(first, 1, rtol=1e-14)
    share = effective_share(LOG_POLICY, LOG_SAMPLING)
    np.testing.assert_allclose(share, 1 / second, rtol=1e-13)
    truncated = effective_share(LOG_POLICY, LOG_SAMPLING, largest=1.5)
    np.testing.assert_allclose(truncated, cut_first**2 / cut_second, rtol=1e-13)
    assert truncated > share + 0.05
    np.testing.assert_allclose(effective_share(LOG_POLICY, LOG_POLICY), 1, rtol=1e-14)


def test_bad_arguments():
    arguments = {"log_sampling": LOG_SAMPLING}
    with pytest.raises(ValueError, match="give token_gate or response_gate, not both"):
        update_moments(
            LOG_POLICY, REWARDS, 0.0, token_gate=plain_gate, response_gate=plain_gate, **arguments
        )
    with pytest.raises(ValueError, match=r"rewards must have shape \(2, 7\), got \(2, 6\)"):
        update_moments(LOG_POLICY, REWARDS[:, :6], 0.0, **arguments)
    for baseline in (np.zeros(3), np.zeros((2, 1))):
        with pytest.raises(
            ValueError, match=r"baseline must be a number or have shape \(2,\), got"
        ):
            update_moments(LOG_POLICY, REWARDS, baseline, **arguments)


def test_ratios_beyond_the_range_of_floats_are_refused():
    far = LOG_POLICY.copy()
    far[:, :, 0] = -800.0
    far[:, :, 1:] -= scipy.special.logsumexp(LOG_POLICY[:, :, 1:], axis=-1, keepdims=True)
    message = "log_sampling must give log-ratios of at most 350, got"
    for gate in (plain_gate, clipped_gate(0.2, 0.2), constant_weight_gate(0.5)):
        for per in ("token_gate", "response_gate"):
            with pytest.raises(ValueError, match=message):
                update_moments(LOG_POLICY, REWARDS, 0.0, log_sampling=far, **{per: gate})
    with pytest.raises(ValueError, match=message):
        effective_share(LOG_POLICY, far)
    assert np.isfinite(update_moments(LOG_POLICY, REWARDS, 0.0, log_sampling=far).second_moment)


def test_a_gradient_that_is_rounding_has_no_direction():
    for value in (0.0, 0.7, 1e6):
        moments = update_moments(
            LOG_POLICY, np.full((2, 7), value), -1.0, log_sampling=LOG_SAMPLING
        )
        assert np.isnan([moments.cosine, moments.relative_bias]).all()
        assert np.isfinite(moments.variance)
    moments = update_moments(LOG_POLICY, 1e-9 * REWARDS, 0.0, log_sampling=LOG_SAMPLING)
    assert np.isfinite([moments.cosine, moments.relative_bias]).all()
