"""Every logged number, defined once: its meaning, its unit, and its values in a healthy run.

`train` rejects a metric that is not listed here. Your own algorithm may add its metrics:
`GLOSSARY["my_metric"] = Metric("formula", "unit", "healthy range")`.
"""

from collections.abc import Iterable
from typing import NamedTuple


class Metric(NamedTuple):
    """Definition, unit and healthy range of a logged number."""

    meaning: str
    unit: str
    healthy: str


GLOSSARY = {
    # Progress
    "environment_steps": Metric(
        "valid transitions collected so far, without reset rows", "steps", "grows"
    ),
    "episodes": Metric("episodes finished so far", "episodes", "grows"),
    "mean_return": Metric(
        "mean undiscounted raw return of the last 100 finished episodes (of all, if fewer)",
        "reward",
        "rises towards the environment's threshold",
    ),
    "evaluation_return": Metric(
        "mean undiscounted raw return of 10 fresh greedy episodes under the updated policy, the "
        "same episodes each time; `train(evaluate_every=...)`",
        "reward",
        "at or above mean_return",
    ),
    "cpu_seconds": Metric(
        "CPU time of the training thread since training began: simulation, critic, update",
        "seconds",
        "grows",
    ),
    "gradient_equivalents": Metric(
        "the actor's matrix products so far, in units of one forward and backward pass over one "
        "transition: a gradient counts 1, a Fisher-vector product on a cached forward 4/3, a "
        "line-search forward 1/3; passes that only report are not counted",
        "gradient-equivalents",
        "grows",
    ),
    "critic_gradient_equivalents": Metric(
        "the same count for the critic's fit", "gradient-equivalents", "grows"
    ),
    # The update
    "policy_loss": Metric(
        "-sum_i w_i A_i log pi(a_i|s_i) before the step",
        "advantage",
        "only its gradient is meaningful; the value does not measure performance",
    ),
    "surrogate_improvement": Metric(
        "L_old(new) - L_old(old), L_old = sum_i w_i A_i pi(a_i|s_i) / pi_old(a_i|s_i)",
        "advantage",
        "above 0",
    ),
    "expected_improvement": Metric(
        "gradient of L_old times the step taken: the improvement if L_old were linear",
        "advantage",
        "near surrogate_improvement; if it is far above, the step is too long",
    ),
    "kl": Metric(
        "exact mean KL(pi_old || pi_new) over the batch's states, weighted by `mean_weight`; per "
        "episode (summed over its states) where episodes are whole",
        "nats",
        "0.001 to 0.03; `train` warns once above 10 nats per step",
    ),
    "entropy": Metric(
        "mean entropy of the new policy over the batch's states, weighted by `mean_weight`; per "
        "episode where they are whole",
        "nats",
        "falls slowly; Discrete actions: near 0 early on is a collapse; Box actions: any sign, see "
        "smallest_std",
    ),
    "smallest_std": Metric(
        "smallest standard deviation of the new policy, over action components; Box actions only",
        "action",
        "falls slowly; below a hundredth of its first value while mean_return does not rise is a "
        "collapse: set min_log_std",
    ),
    "gradient_norm": Metric(
        "Euclidean norm of the policy's gradient before any clipping; mean over minibatches",
        "advantage",
        "of the same order throughout",
    ),
    "accepted_fraction": Metric(
        "fraction of TRPO's full step that the line search accepted; 0: none, the parameters stay",
        "",
        "1 or a little below; often 0 means that the critic is poor or the batch small",
    ),
    "cg_iterations": Metric(
        "number of conjugate-gradient iterations", "iterations", "cg_iterations, or fewer"
    ),
    "cg_residual": Metric(
        "|b - A x| / |b| when conjugate gradient stopped, A = F + damping I. It shows how well x "
        "solves the equations, not how near x is to the exact natural direction: for a nearly "
        "deterministic policy A is ill-conditioned, and x was once 81 % off at a residual of 0.1",
        "",
        "near 1: more iterations or damping are needed; no value shows that x is accurate",
    ),
    "clip_fraction": Metric(
        "share of rows with |ratio - 1| > epsilon, each row counted once without its weight; mean "
        "over minibatches",
        "",
        "0.02 to 0.3",
    ),
    "kl_coefficient": Metric(
        "beta of the KL penalty in this update; 0 without one", "advantage/nat", "settles"
    ),
    "epochs": Metric("passes over the batch in this update", "epochs", "the setting, or fewer"),
    # The critic
    "value_loss": Metric(
        "sum_i u_i (V(s_i) - R_i)^2 / 2 with u the `mean_weight`, mean over the last epoch",
        "reward^2",
        "falls",
    ),
    "explained_variance": Metric(
        "1 - Var(R - V) / Var(R) over the rows, V from before the fit; nan if R is constant",
        "",
        "rises towards 1; below 0 the critic predicts worse than a constant",
    ),
    "critic_gradient_norm": Metric(
        "Euclidean norm of the critic's gradient before clipping, mean over minibatches",
        "reward",
        "of the same order throughout",
    ),
    # Reward transforms
    "reward_scale": Metric(
        "divisor of the rewards: running standard deviation of discounted reward sums",
        "reward",
        "settles",
    ),
    "reference_beta": Metric(
        "beta of the penalty on the KL to the reference, in this update", "reward/nat", "settles"
    ),
    "reference_k1": Metric(
        "mean over sampled sentences of log pi(y) - log pi_ref(y): estimates KL(pi || pi_ref)",
        "nats/sentence",
        "0 at first, then near exact_reference_kl",
    ),
    "reference_k2": Metric(
        "mean of (log pi(y) - log pi_ref(y))^2 / 2: biased away from the reference",
        "nats/sentence",
        "0 at first",
    ),
    "reference_k3": Metric(
        "mean of pi_ref(y)/pi(y) - 1 + log pi(y) - log pi_ref(y): unbiased; at a KL of 2 most "
        "estimates lie below the exact value",
        "nats/sentence",
        "0 at first",
    ),
    "reference_kl_along_prefixes": Metric(
        "exact KL of each next-token distribution, summed along the sampled sentences",
        "nats/sentence",
        "0 at first, then near exact_reference_kl",
    ),
    # Exact values of the policy that acted, recorded by `train(measure=...)`
    "exact_return": Metric("J of a finite MDP, by a linear solve", "return", "rises"),
    # The same on the token task
    "exact_objective": Metric(
        "J = E[r(x, y)] - beta KL(pi || pi_ref) over all responses", "reward", "rises towards J*"
    ),
    "exact_reward": Metric("E[r(x, y)] over all responses", "reward", "rises"),
    "exact_gold_reward": Metric(
        "E[r(x, y)] with the gold utilities, if the policy learns from a reward model's",
        "reward",
        "rises; a fall is over-optimisation",
    ),
    "exact_reference_kl": Metric(
        "KL(pi || pi_ref) of whole responses", "nats/sentence", "rises to the optimum's"
    ),
}


def require_known(names: Iterable[str]) -> None:
    """Raise KeyError naming the metrics that the glossary does not define."""
    unknown = sorted(set(names) - GLOSSARY.keys())
    if unknown:
        raise KeyError(
            f"metrics {unknown} are not defined in minirl.support.metrics.GLOSSARY; "
            "add a Metric(meaning, unit, healthy) for each"
        )
