"""What is said about reinforcement learning from verifiable rewards, measured on eight corpora.

    python -m benchmarks.rlhf.verifiable_claims            (about four minutes of CPU time)
    python -m benchmarks.rlhf.verifiable_claims --table    (the tables of docs/rlhf/claims.md)

Four prompts have demonstrations that are right at the rates `UNEQUAL`. The first answer decides.
benchmarks/results/verifiable_claims.csv has one row per number:

measurement, setting     what was measured, and for which method or policy
corpus                   of the demonstrations, and the seed of the run
point                    where: a prompt, a mean success rate, a KL, or a moment of the run
quantity, value          the number, with five digits

"difficulty", "length", "stale" and "slope" are exact: they sample nothing but the demonstrations.
The others are runs of `align` with 20,480 sentences, without a KL penalty.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from typing import cast

import numpy as np
import scipy.special

from benchmarks import study
from minirl import Preset, Result, preset, rlhf
from minirl.algorithms import PPO
from minirl.algorithms.ppo import Clipped
from minirl.envs.verifiable import UNEQUAL, first_answer_correct, verifiable
from minirl.exact import sequences
from minirl.exact.groups import (
    Advantage,
    Averaging,
    clipped_gate,
    expected_update,
    plain_gate,
    response_lengths,
    silent_share,
)
from minirl.exact.off_policy import update_moments
from minirl.exact.pass_at_k import centred_gradient_weights, pass_at_k
from minirl.experiments.alignment.verifiable import same_steps
from minirl.optimizers import Adam
from minirl.policy import Policy
from minirl.rlhf.align import ENVIRONMENT
from minirl.rlhf.language_model import log_table, network_policy

STUDY = study.Study(
    study.RESULTS / "verifiable_claims.csv",
    ("measurement", "setting", "corpus", "point", "quantity"),
    ("value",),
)
CORPORA = range(8)
TASK = verifiable(first_answer_correct, success_rates=UNEQUAL)
PROMPTS = ("1", "2", "3", "4")
DEMONSTRATIONS = 2_000
GROUP_SIZE = 16
SENTENCES = 20_480
WEIGHTS: dict[str, Advantage] = {
    "RLOO": "leave-one-out",
    "GRPO": "normalized",
    "MaxRL": "success",
}
# The step size is about three times as large for the mean, which is about a third of the sum.
MEANS: dict[str, tuple[Averaging, float]] = {
    "sum over tokens": ("sum", 3.0),
    "mean over each response": ("response", 9.0),
}
KLS = (0.0, 0.1, 0.3, 0.6)
GATES: dict[str, dict[str, object]] = {
    "none": {},
    "token ratios": {"token_gate": plain_gate},
    "token ratios, clipped at 0.2": {"token_gate": clipped_gate(0.2, 0.2)},
    "sequence ratio R": {"response_gate": plain_gate},
    "GSPO's R^(1/length)": {"response_gate": plain_gate, "length_root": True},
    "GSPO, clipped": {"response_gate": clipped_gate(3e-4, 4e-4), "length_root": True},
}
BOUNDS = {
    "1 - 0.2, 1 + 0.2": Clipped(0.2, 0.2),
    "1 - 0.2, 1 + 0.28": Clipped(0.2, 0.28),
    "1 - 0.2, 1 + 1": Clipped(0.2, 1.0),
    "0, 1 + 0.2": Clipped(1.0, 0.2),
}
METHODS = {
    "rloo": "RLOO",
    "grpo-paper": "GRPO",
    "dapo": "DAPO",
    "maxrl": "MaxRL",
    "pass-at-k": "pass@4",
}
NAMES = {"RLOO": "rloo", "Dr. GRPO": "dr-grpo", "GRPO": "grpo-paper", "MaxRL": "maxrl"}
ADAM_RATE = 0.05  # that of the presets
OPTIMIZERS = ("SGD", "Adam")
POLICIES = ("table", "network")
ADVANTAGES: dict[str, Advantage | np.ndarray] = {
    **WEIGHTS,
    "pass@4": GROUP_SIZE * centred_gradient_weights(GROUP_SIZE, 4),
}
Numbers = Iterator[tuple[str, str, float]]


@cache
def reference(corpus: int, kind: str = "table") -> Policy:
    """The model that is fine-tuned on a corpus."""
    rng = np.random.default_rng(corpus)
    demonstrations = rlhf.sample_demonstrations(TASK, DEMONSTRATIONS, rng)
    if kind == "table":
        return rlhf.fine_tune(TASK, demonstrations).policy
    return rlhf.fine_tune_network(TASK, demonstrations, network_policy(TASK, rng)).policy


def success(log_policy: np.ndarray) -> np.ndarray:
    """The exact success rate of each prompt, (X,)."""
    log_probs = sequences.response_log_probs(log_policy)
    return (np.exp(log_probs) * TASK.utilities).sum(axis=1).clip(0, 1)


def climbed(log_policy: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The table whose logits have moved by a step."""
    return scipy.special.log_softmax(log_policy + step, axis=-1)


def difficulty(method: str, corpus: int) -> Numbers:
    """How long the exact update of each prompt is, as a share of the sum over prompts."""
    log_policy = log_table(TASK, reference(corpus))
    update = expected_update(log_policy, TASK.utilities, GROUP_SIZE, advantage=WEIGHTS[method])
    lengths = np.linalg.norm(update.reshape(len(update), -1), axis=1)
    for prompt, rate, share in zip(
        PROMPTS, success(log_policy), lengths / lengths.sum(), strict=True
    ):
        yield prompt, "success", rate
        yield prompt, "share", share


def length(mean: str, corpus: int) -> Numbers:
    """Lengths of right and wrong answers while GRPO's exact expected update is followed."""
    log_policy = log_table(TASK, reference(corpus))
    averaging, step = MEANS[mean]
    lengths, rewards = response_lengths(log_policy), TASK.utilities
    path: list[list[float]] = []
    while not path or path[-1][0] < 0.99:
        probs, p = np.exp(sequences.response_log_probs(log_policy)), success(log_policy)
        right = (probs * rewards) @ lengths / p
        wrong = (probs * (1 - rewards)) @ lengths / (1 - p)
        mixed = 1 - silent_share(p, GROUP_SIZE)
        path.append([p.mean(), right.mean(), wrong.mean(), (probs @ lengths).mean(), mixed.mean()])
        update = expected_update(log_policy, rewards, GROUP_SIZE, averaging=averaging)
        log_policy = climbed(log_policy, step * update)
    columns = np.array(path).T
    for point in LENGTH_POINTS:
        rate = columns[0, 0] if point == "reference" else float(point)
        for quantity, column in zip(LENGTH_QUANTITIES, columns[1:], strict=True):
            yield point, quantity, float(np.interp(rate, columns[0], column))


LENGTH_POINTS = ("reference", "0.9", "0.99")
LENGTH_QUANTITIES = ("right", "wrong", "all", "mixed")


def stale(gate: str, corpus: int) -> Numbers:
    """The expected update from the reference's samples at a policy that has moved on.

    The current policy has followed the exact policy gradient until KL(reference || policy) is as
    large as stated. The baseline of a prompt is the sampling policy's success rate.
    """
    for name, log_policy in moved(corpus).items():
        moments = update_moments(
            log_policy,
            TASK.utilities,
            success(moved(corpus)["0"]),
            log_sampling=moved(corpus)["0"],
            **GATES[gate],  # type: ignore[arg-type]
        )
        yield name, "cosine", moments.cosine
        yield name, "noise", moments.variance / float((moments.mean**2).sum())


@cache
def moved(corpus: int) -> dict[str, np.ndarray]:
    """The policy on its way up, at each of `KLS`."""
    log_policy = log_table(TASK, reference(corpus))
    sampled = sequences.response_log_probs(log_policy)
    found: dict[str, np.ndarray] = {}
    for bound in KLS:
        while sequences.kl(sampled, sequences.response_log_probs(log_policy)) < bound:
            update = expected_update(
                log_policy, TASK.utilities, GROUP_SIZE, advantage="leave-one-out"
            )
            log_policy = climbed(log_policy, 0.5 * update)
        found[f"{bound:g}"] = log_policy
    return found


def aligned(
    chosen: str | Preset,
    corpus: int,
    kind: str = "table",
    measure: Callable[[Policy], dict[str, float]] | None = None,
) -> Result:
    """`align` on the verifiable rewards, without a KL penalty."""
    options = {"sentences": SENTENCES, "beta": None, "seed": corpus, "measure": measure}
    return rlhf.align(
        TASK,
        reference(corpus, kind),
        TASK.utilities,
        chosen,
        **options,  # type: ignore[arg-type]
    )


def redrawing(setting: str, corpus: int) -> Numbers:
    """DAPO with groups redrawn or not, at equal sentences: success of the prompts at the end."""
    optimizer, redrawn = REDRAWING[setting]
    chosen = same_steps("dapo") if optimizer == "SGD" else preset(ENVIRONMENT, "dapo")
    settings = replace(chosen.settings, mixed_groups=redrawn)
    result = aligned(replace(chosen, settings=settings), corpus)
    yield "end", "success", float(success(log_table(TASK, result.policy)).mean())
    yield "end", "updates", float(len(result.history.columns()["episodes"]))


REDRAWING = {
    "SGD, all groups": ("SGD", False),
    "SGD, silent groups redrawn": ("SGD", True),
    "Adam, all groups": ("Adam", False),
    "Adam, silent groups redrawn": ("Adam", True),
}


def steps(setting: str, corpus: int) -> Numbers:
    """The hardest prompt after 40 steps of equal size, with plain gradient descent or with Adam."""
    optimizer, method = setting.split(", ")
    chosen = same_steps(NAMES[method])
    if optimizer == "Adam":
        algorithm = cast(PPO, chosen.algorithm)
        algorithm = replace(algorithm, learning_rate=ADAM_RATE, optimizer=Adam())
        chosen = replace(chosen, algorithm=algorithm)
    policy = aligned(chosen, corpus).policy
    yield "4", "success", float(success(log_table(TASK, policy))[-1])


def clipping(bounds: str, corpus: int) -> Numbers:
    """Exact entropy of whole responses when GRPO, four epochs per batch, first reaches a success.

    At the end the policy has learned from all sentences.
    """
    chosen = preset(ENVIRONMENT, "grpo")
    algorithm = replace(cast(PPO, chosen.algorithm), objective=BOUNDS[bounds])
    chosen = replace(chosen, algorithm=algorithm)
    path: list[tuple[float, float]] = []

    def measure(policy: Policy) -> dict[str, float]:
        log_policy = log_table(TASK, policy)
        entropy = sequences.entropy(sequences.response_log_probs(log_policy))
        path.append((float(success(log_policy).mean()), entropy))
        return {}

    measure(aligned(chosen, corpus, measure=measure).policy)
    rates, entropies = np.array(path).T
    yield "reference", "entropy", entropies[0]
    for point in ("0.7", "0.9"):
        # The first update that passes this rate, and the share of it that was needed.
        after = int(np.argmax(rates >= float(point)))
        pair = slice(after - 1, after + 1)
        yield point, "entropy", float(np.interp(float(point), rates[pair], entropies[pair]))
    yield "end", "entropy", entropies[-1]


def passes(setting: str, corpus: int) -> Numbers:
    """Success rates of the four prompts before and after training."""
    kind, method = setting.split(", ")
    policy = reference(corpus, kind)
    if method != "reference":
        policy = aligned(method, corpus, kind).policy
    for prompt, rate in zip(PROMPTS, success(log_table(TASK, policy)), strict=True):
        yield prompt, "success", rate


def slope(setting: str, corpus: int) -> Numbers:
    """How fast each prompt's success rate rises at first along the exact expected update.

    It is ``<grad p(x), update> / |grad p(x)|^2`` in the parameters: the weight w(p(x)) of the
    prompt itself, plus what the updates of the other prompts add through shared parameters.
    """
    kind, method = setting.split(", ")
    policy = reference(corpus, kind)
    log_policy, rewards = log_table(TASK, policy), TASK.utilities
    update = expected_update(log_policy, rewards, GROUP_SIZE, advantage=ADVANTAGES[method])
    gradient = sequences.policy_gradient(log_policy, log_policy, rewards, 0.0)
    _, cache = policy.forward(np.arange(len(rewards) * log_policy.shape[1]))
    rows = log_policy.shape[2]
    moved_by = policy.vjp(cache, len(rewards) * update.reshape(-1, rows))
    for x, prompt in enumerate(PROMPTS):
        of_prompt = np.zeros_like(gradient)
        of_prompt[x] = len(rewards) * gradient[x]
        rises = policy.vjp(cache, of_prompt.reshape(-1, rows))
        yield prompt, "slope", float(rises @ moved_by / (rises @ rises))


# measurement -> function, settings, points and quantities
MEASUREMENTS: dict[str, tuple[Callable[[str, int], Numbers], Iterable[str], list[str]]] = {
    "difficulty": (
        difficulty,
        WEIGHTS,
        [f"{x} {q}" for x in PROMPTS for q in ("success", "share")],
    ),
    "length": (length, MEANS, [f"{x} {q}" for x in LENGTH_POINTS for q in LENGTH_QUANTITIES]),
    "stale": (stale, GATES, [f"{x:g} {q}" for x in KLS for q in ("cosine", "noise")]),
    "redrawing": (redrawing, REDRAWING, ["end success", "end updates"]),
    "clipping": (clipping, BOUNDS, [f"{x} entropy" for x in ("reference", "0.7", "0.9", "end")]),
    "steps": (
        steps,
        [f"{optimizer}, {name}" for optimizer in OPTIMIZERS for name in NAMES],
        ["4 success"],
    ),
    "slope": (
        slope,
        [f"{kind}, {name}" for kind in POLICIES for name in ADVANTAGES],
        [f"{x} slope" for x in PROMPTS],
    ),
    "pass@k": (
        passes,
        [f"{kind}, {name}" for kind in POLICIES for name in ("reference", *METHODS)],
        [f"{x} success" for x in PROMPTS],
    ),
}
Item = tuple[str, str, int]


def wanted() -> list[Item]:
    """All runs."""
    return [
        (name, setting, corpus)
        for corpus in CORPORA
        for name, (_, settings, _) in MEASUREMENTS.items()
        for setting in settings
    ]


def stored_keys() -> list[tuple[str, ...]]:
    """The key of every row that the runs store."""
    return [
        (*map(str, item), *place.rsplit(" ", 1))
        for item in wanted()
        for place in MEASUREMENTS[item[0]][2]
    ]


def run(item: Item) -> list[tuple[str, str, str]]:
    """The rows of a run, without its own key."""
    name, setting, corpus = item
    return [
        (point, quantity, f"{value:.5g}")
        for point, quantity, value in MEASUREMENTS[name][0](setting, corpus)
    ]


def store(item: Item, rows: list[tuple[str, str, str]]) -> None:
    """Append the rows of a finished run."""
    STUDY.append([(*item, *row) for row in rows])


@cache
def stored() -> dict[tuple[str, ...], np.ndarray]:
    """The stored numbers by measurement, setting, point and quantity."""
    groups = study.grouped(STUDY.rows(), "measurement", "setting", "point", "quantity")
    return {key: np.array(study.numbers(rows, "value")) for key, rows in groups.items()}


def middle(numbers: np.ndarray, form: str) -> str:
    """Median with the smallest and the largest over the corpora."""
    return study.median_with_range(numbers, form)


FORMS = {"end updates": ".0f", **{f"{x:g} noise": ".0f" for x in KLS}}


def tables() -> dict[str, str]:
    """The tables of docs/rlhf/claims.md: medians with the smallest and the largest."""

    def lines(measurement: str, columns: Iterable[str], form: str) -> list[list[str]]:
        return [
            [
                setting,
                *(
                    middle(stored()[measurement, setting, *c.rsplit(" ", 1)], FORMS.get(c, form))
                    for c in columns
                ),
            ]
            for setting in MEASUREMENTS[measurement][1]
        ]

    found = {}
    rates = [middle(stored()["difficulty", "RLOO", x, "success"], ".3f") for x in PROMPTS]
    shares = lines("difficulty", [f"{x} share" for x in PROMPTS], ".3f")
    found["difficulty"] = study.markdown(
        ["share of the update", *(f"prompt {x}" for x in PROMPTS)],
        [["success rate", *rates], *shares],
    )
    columns = [f"{x} {q}" for q in ("right", "wrong") for x in LENGTH_POINTS]
    head = [f"{q}, {x}" for q in ("right", "wrong") for x in LENGTH_POINTS]
    found["length"] = study.markdown(["tokens", *head], lines("length", columns, ".2f"))
    places = [f"{x:g} {q}" for x in KLS[1:] for q in ("cosine", "noise")]
    head = [f"{q} at {x:g} nats" for x in KLS[1:] for q in ("cosine", "noise")]
    found["stale"] = study.markdown(["weight", *head], lines("stale", places, ".2f"))
    found["redrawing"] = study.markdown(
        ["optimizer, groups", "updates", "mean success rate"],
        lines("redrawing", ["end updates", "end success"], ".3f"),
    )
    points = ["reference", "0.7", "0.9", "end"]
    mixed = [
        middle(stored()["length", "sum over tokens", x, "mixed"], ".2f") for x in LENGTH_POINTS
    ]
    head = ["mean success rate", "at the reference", *LENGTH_POINTS[1:]]
    found["mixed"] = study.markdown(head, [["mixed groups", *mixed]])
    found["clipping"] = study.markdown(
        ["bounds of the ratio", *(f"entropy, {x}" for x in points)],
        lines("clipping", [f"{x} entropy" for x in points], ".2f"),
    )
    rows = []
    for kind in POLICIES:
        for method in ADVANTAGES:
            slopes = stored()["slope", f"{kind}, {method}", "4", "slope"]
            falls = f"{(slopes < 0).sum()} of {len(slopes)}"
            rows.append([kind, method, middle(slopes, ".2f"), falls])
    head = ["policy", "weights of", "slope of the hardest prompt", "it falls"]
    found["slope"] = study.markdown(head, rows)
    found["pass@k"] = pass_table()
    return found


def steps_table() -> str:
    """The hardest prompt after equal steps; for docs/rlhf/findings.md."""
    rows: list[list[str]] = [
        [
            name,
            *(middle(stored()["steps", f"{o}, {name}", "4", "success"], ".3f") for o in OPTIMIZERS),
        ]
        for name in NAMES
    ]
    return study.markdown(["method", *OPTIMIZERS], rows)


def pass_table() -> str:
    """pass@1 and pass@64 before and after, and how often pass@64 fell below the reference's."""
    rows = []
    for kind in POLICIES:
        before = None
        for method in ("reference", *METHODS):
            rates = np.array(
                [stored()["pass@k", f"{kind}, {method}", x, "success"] for x in PROMPTS]
            )
            once, often = rates.mean(axis=0), pass_at_k(rates, 64).mean(axis=0)
            before = often if before is None else before
            fell = "" if method == "reference" else f"{(often < before).sum()} of {len(often)}"
            label = METHODS.get(method, method)
            hardest = middle(rates[-1], ".3f")
            rows.append([kind, label, middle(once, ".3f"), middle(often, ".3f"), hardest, fell])
    head = ["policy", "method", "pass@1", "pass@64", "hardest prompt", "pass@64 fell"]
    return study.markdown(head, rows)


def table() -> str:
    """All tables."""
    return "\n\n".join([*tables().values(), steps_table()])


if __name__ == "__main__":
    study.main(__doc__, STUDY, run, wanted, table, store=store)
