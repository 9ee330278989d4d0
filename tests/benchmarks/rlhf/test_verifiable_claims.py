"""The findings on verifiable rewards: slopes by finite differences, and counts in stored runs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.rlhf import verifiable_claims
from minirl.exact import sequences
from minirl.rlhf.language_model import log_table


def test_slopes_are_finite_differences_of_the_success_rate():
    policy = verifiable_claims.reference(0, "network")
    log_policy = log_table(verifiable_claims.TASK, policy)
    of_prompts = sequences.policy_gradient(
        log_policy, log_policy, verifiable_claims.TASK.utilities, 0.0
    )
    _, cache = policy.forward(np.arange(of_prompts[..., 0].size))

    def rise(of_logits):
        """d p(hardest) / d step along the gradient with respect to these logits."""
        direction = policy.vjp(cache, of_logits.reshape(-1, of_logits.shape[2]))
        step = 1e-3 / np.linalg.norm(direction)
        ends = [
            verifiable_claims.success(
                log_table(
                    verifiable_claims.TASK,
                    replace(policy, parameters=policy.parameters + sign * step * direction),
                )
            )[-1]
            for sign in (1, -1)
        ]
        return (ends[0] - ends[1]) / (2 * step)

    hardest = np.zeros_like(of_prompts)
    hardest[-1] = of_prompts[-1]
    expected = rise(of_prompts) / rise(hardest)
    found = {
        method: {point: value for point, _, value in verifiable_claims.slope(method, 0)}["4"]
        for method in ("network, RLOO", "network, MaxRL")
    }
    assert found["network, RLOO"] == pytest.approx(expected, rel=1e-3)
    assert expected < -1  # the exact gradient of the mean lowers the hardest prompt
    assert found["network, MaxRL"] > 1  # other weights raise it


FINDINGS = " ".join(
    (Path(__file__).parents[3] / "docs" / "rlhf" / "findings.md").read_text().split()
)
WORDS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight"]


def numbers(*key):
    """The stored numbers of eight corpora."""
    return verifiable_claims.stored()[key]


def falls(setting):
    """On how many corpora the stored slope of the hardest prompt is negative."""
    return int((numbers("slope", setting, "4", "slope") < 0).sum())


def pass_at_64_fell(setting):
    """On how many corpora pass@64, a mean over the prompts, ended below the reference's."""
    kind = setting.split(", ")[0]
    after, before = (
        np.mean(
            [1 - (1 - numbers("pass@k", of, x, "success")) ** 64 for x in ("1", "2", "3", "4")],
            axis=0,
        )
        for of in (setting, f"{kind}, reference")
    )
    return int((after < before).sum())


def test_finding_2_right_answers_are_shorter_and_wrong_ones_longer_on_eight_corpora():
    sums, means = (
        {of: numbers("length", mean, "0.99", of) for of in ("right", "wrong")}
        for mean in ("sum over tokens", "mean over each response")
    )
    count = int(((means["right"] < sums["right"]) & (means["wrong"] > sums["wrong"])).sum())
    assert f"in this direction on {WORDS[count]} of eight corpora" in FINDINGS


def test_finding_3_with_small_plain_steps_only_maxrl_solves_the_hardest_prompt():
    after = {
        setting: numbers("steps", setting, "4", "success")
        for setting in (
            f"{optimizer}, {name}"
            for optimizer in verifiable_claims.OPTIMIZERS
            for name in verifiable_claims.NAMES
        )
    }
    assert all(len(rates) == 8 for rates in after.values())
    assert after.pop("SGD, MaxRL").min() > 0.9
    assert all(after[f"SGD, {name}"].max() < 0.1 for name in ("RLOO", "Dr. GRPO", "GRPO"))
    adam = [np.median(rates) for setting, rates in after.items() if setting.startswith("Adam")]
    assert len(adam) == 4
    assert max(adam) - min(adam) < 0.1  # about equally well


def test_finding_4_counts_networks_whose_hardest_prompt_falls():
    assert len(numbers("slope", "network, RLOO", "4", "slope")) == 8
    gradient, *others = (falls(f"network, {name}") for name in ("RLOO", "MaxRL", "pass@4"))
    assert f"On {WORDS[gradient]} of eight small networks, the exact gradient" in FINDINGS
    assert "The weights of MaxRL and of pass@4 raise it on all eight" in FINDINGS
    assert others == [0, 0]
    assert falls("network, GRPO") not in (0, gradient)  # the counts distinguish methods
    assert pass_at_64_fell("network, rloo") > 0
    # On a table it cannot happen.
    assert [falls(f"table, {name}") for name in verifiable_claims.ADVANTAGES] == [0, 0, 0, 0]
    assert pass_at_64_fell("table, rloo") == 0


def test_finding_7_clipped_updates_point_against_the_gradient_on_all_corpora():
    medians = []
    for gate in ("token ratios, clipped at 0.2", "GSPO, clipped"):
        cosines = numbers("stale", gate, "0.1", "cosine")
        assert len(cosines) == 8
        assert (cosines < 0).all()
        medians.append(f"{np.median(cosines):.2f}")
    assert f"are {' and '.join(medians)} (medians of eight corpora; all are negative)" in FINDINGS
    # Only the ratio of the whole answer gives the gradient.
    assert numbers("stale", "sequence ratio R", "0.1", "cosine").min() > 0.9999
    assert numbers("stale", "none", "0.1", "cosine").max() < 0.9
