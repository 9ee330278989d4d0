"""The slope of the hardest prompt, on which a finding rests, against finite differences."""

from dataclasses import replace

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
