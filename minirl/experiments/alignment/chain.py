"""The stages of alignment: fine-tuning, preferences, reward model, learning, over-optimisation.

Every method starts from the same reference. An online method samples while it learns, an offline
method learns from pairs that were sampled beforehand, and best-of-n does not learn. Every method is
judged by the gold rewards, which are what the human wants, even if it learned from other rewards:

    J = E[gold reward] - beta KL(pi || pi_ref), exact over all responses.
"""

import itertools
import time
from dataclasses import dataclass, replace

import numpy as np

from minirl.envs.arithmetic import arithmetic
from minirl.exact import sequences
from minirl.networks import Features
from minirl.optimizers import LinearSchedule
from minirl.policy import Policy
from minirl.presets import VERIFIED, preset
from minirl.rlhf.align import ENVIRONMENT, align
from minirl.rlhf.dpo import DPO
from minirl.rlhf.language_model import log_table, network_policy
from minirl.rlhf.objective import Objective
from minirl.rlhf.preference_losses import PREFERENCE_LOSSES
from minirl.rlhf.preferences import Annotator, Pairs, Preferences, sample_pairs
from minirl.rlhf.reward_model import (
    RewardModel,
    bag_of_words,
    fit_reward_model,
)
from minirl.rlhf.sft import FineTuned, fine_tune, sample_demonstrations
from minirl.rlhf.sft_network import fine_tune_network
from minirl.training import Measure

# Number of sentences that each online method may sample: it samples while it learns.
SENTENCES = {
    "policy-gradient": 51_200,
    "natural-gradient": 61_440,
    "trpo": 61_440,
    "ppo": 51_200,
    "rloo": 51_200,
    "grpo": 51_200,
}
METHODS = (*SENTENCES, "dpo", "ipo", "best-of-n")
# The methods for verifiable rewards learn from any reward, except for those that need 0 and 1.
SENTENCES |= {name: 51_200 for name in VERIFIED if name not in ("maxrl", "pass-at-k")}
ALL_METHODS = tuple(dict.fromkeys([*METHODS, *SENTENCES, *PREFERENCE_LOSSES]))
MODELS = ("table", "mlp")
DEMONSTRATIONS = 2_000
HELD_OUT_PAIRS = 5_000
# A table could memorise labels that were drawn once, noise included, so DPO stops early on them.
DPO_STEPS = {"gold": 600, "learned": 150}
# Contexts of a network share parameters: it needs smaller and fewer steps, also with exact labels.
NETWORK_DPO_STEPS = 200
NETWORK_DPO_RATES = {"gold": LinearSchedule(0.01), "learned": LinearSchedule(0.003)}
MEASUREMENTS = 50  # points of a learning curve
BEST_OF = (2, 4, 8, 16, 64)
REPORTED_BEST_OF = 16
OVEROPTIMISATION_BETAS = np.geomspace(20.0, 0.02, 80)
OVEROPTIMISATION_BEST_OF = 2 ** np.arange(13)
FRONTIER_BETAS = np.geomspace(100.0, 0.03, 300)


@dataclass(frozen=True, eq=False)
class Prepared:
    """The common starting point of all methods.

    Parameters
    ----------
    tuned : FineTuned
        Its policy is the reference.
    pairs : Pairs
    soft, hard : Preferences
        The same pairs with the annotator's probabilities, and with one judgement each.
    model : RewardModel
        Fitted to the hard labels, centred on the reference.
    held_out : Preferences
        Fresh pairs with soft labels.
    objective : Objective
        J with the gold rewards.
    learned : ndarray (X, N)
        The model's rewards.
    """

    tuned: FineTuned
    pairs: Pairs
    soft: Preferences
    hard: Preferences
    model: RewardModel
    held_out: Preferences
    objective: Objective
    learned: np.ndarray


@dataclass(frozen=True, eq=False)
class MethodRun:
    """The result of one method with one seed.

    Parameters
    ----------
    log_probs : ndarray (X, N)
        Of every response.
    sentences : int
        Number of sentences sampled while learning; for best-of-n, per answer.
    curve : ndarray (2, U)
        Sentences sampled before each measurement, and J then.
    seconds : float
        CPU time, measurements included.
    """

    log_probs: np.ndarray
    sentences: int
    curve: np.ndarray
    seconds: float


def prepare(*, beta: float, labels: int, seed: int, model: str = "table") -> Prepared:
    """Supervised fine-tuning, preferences and the reward model of the arithmetic task.

    `model` is "table", a bigram table, or "mlp", a network of the features of a context.

    Raises
    ------
    ValueError
        If beta is outside the range in which the exact numbers are accurate (see `Objective`).
    """
    task = arithmetic()
    streams = np.random.SeedSequence(seed).spawn(4)
    corpus_rng, label_rng, held_out_rng, network_rng = map(np.random.default_rng, streams)
    demonstrations = sample_demonstrations(task, DEMONSTRATIONS, corpus_rng)
    if model == "table":
        tuned = fine_tune(task, demonstrations)
    else:
        tuned = fine_tune_network(task, demonstrations, network_policy(task, network_rng))
    annotator, gold = Annotator(), task.utilities
    pairs = sample_pairs(task, tuned.policy, labels, label_rng)
    hard = annotator.hard(pairs, gold, label_rng)
    objective = Objective(task, tuned.policy, gold, beta)
    reward_model = fit_reward_model(bag_of_words(task), hard).centred(objective.reference_log_probs)
    sequences.require_price("beta", beta, reward_model.rewards())
    held_out = sample_pairs(task, tuned.policy, HELD_OUT_PAIRS, held_out_rng)
    return Prepared(
        tuned=tuned,
        pairs=pairs,
        soft=annotator.soft(pairs, gold),
        hard=hard,
        model=reward_model,
        held_out=annotator.soft(held_out, gold),
        objective=objective,
        learned=reward_model.rewards(),
    )


def run_method(name: str, prepared: Prepared, reward: str, seed: int) -> MethodRun:
    """One method from the reference, with the gold or the learned reward."""
    began = time.process_time()
    if name == "best-of-n":
        log_probs, sentences, curve = run_best_of_n(prepared, reward)
    else:
        learn = run_online if name in SENTENCES else run_offline
        policy, sentences, curve = learn(name, prepared, reward, seed)
        log_probs = sequences.response_log_probs(log_table(prepared.objective.task, policy))
    return MethodRun(log_probs, sentences, curve, time.process_time() - began)


def kl_and_gold(log_probs: np.ndarray, objective: Objective) -> tuple[float, float]:
    """KL to the reference and gold reward of a distribution over responses (X, N)."""
    return (
        sequences.kl(log_probs, objective.reference_log_probs),
        sequences.expected_reward(log_probs, objective.rewards),
    )


def training_rewards(prepared: Prepared, reward: str) -> np.ndarray:
    return prepared.objective.rewards if reward == "gold" else prepared.learned


def run_best_of_n(prepared: Prepared, reward: str) -> tuple[np.ndarray, int, np.ndarray]:
    """Best-of-n: log-probabilities, sentences per answer, and an empty curve."""
    log_probs = sequences.best_of_n(
        prepared.objective.reference_log_probs, training_rewards(prepared, reward), REPORTED_BEST_OF
    )
    return log_probs, REPORTED_BEST_OF, np.zeros((2, 0))


def run_online(
    name: str, prepared: Prepared, reward: str, seed: int
) -> tuple[Policy, int, np.ndarray]:
    """A method that samples while it learns: policy, sentences, curve."""
    objective = prepared.objective
    updates = SENTENCES[name] // preset(ENVIRONMENT, name).settings.num_envs
    result = align(
        objective.task,
        objective.reference,
        training_rewards(prepared, reward),
        name,
        sentences=SENTENCES[name],
        beta=objective.beta,
        seed=seed,
        measure=_sparsely(objective.measure, updates),
    )
    columns = result.history.columns()
    after, measured = columns["episodes"], columns["exact_objective"]
    before, sentences = np.concatenate([[0], after[:-1]]), int(after[-1])
    final = objective.value(result.policy).objective
    was_measured = ~np.isnan(measured)
    curve = np.array([[*before[was_measured], sentences], [*measured[was_measured], final]])
    return result.policy, sentences, curve


def run_offline(
    name: str, prepared: Prepared, reward: str, seed: int
) -> tuple[Policy, int, np.ndarray]:
    """A method that samples its pairs beforehand: policy, sentences, curve."""
    objective, steps = prepared.objective, DPO_STEPS[reward]
    algorithm = DPO(beta=objective.beta, loss=name, steps=steps)
    if isinstance(objective.reference.network, Features):
        steps = NETWORK_DPO_STEPS
        algorithm = replace(algorithm, steps=steps, learning_rate=NETWORK_DPO_RATES[reward])
    fitted = algorithm.fit(
        objective.task,
        objective.reference,
        prepared.soft if reward == "gold" else prepared.hard,
        np.random.default_rng(seed),
        measure=_sparsely(objective.measure, steps),
    )
    sentences = 2 * (len(prepared.soft) + prepared.pairs.identical)
    measured = [row["exact_objective"] for row in fitted.rows if "exact_objective" in row]
    measured.append(objective.value(fitted.policy).objective)
    return fitted.policy, sentences, np.array([[sentences] * len(measured), measured])


def _sparsely(measure: Measure, calls: int) -> Measure:
    """`measure`, but evaluated in only about `MEASUREMENTS` of all calls, evenly spaced."""
    every, counter = max(1, calls // MEASUREMENTS), itertools.count()
    return lambda policy: measure(policy) if next(counter) % every == 0 else {}


@dataclass(frozen=True, eq=False)
class Overoptimisation:
    """Three ways to increase the learned reward, further and further from the reference.

    Parameters
    ----------
    paths : dict
        Name -> "kl" (nats), "gold" and "learned" reward, starting at the reference. The learned
        reward is shifted to start at the gold reward; no preference depends on this shift.
    hacked : dict
        Name -> log-probabilities (X, N) of the responses at the end of two of the paths.
    """

    paths: dict[str, dict[str, np.ndarray]]
    hacked: dict[str, np.ndarray]


def overoptimise(prepared: Prepared, seed: int) -> Overoptimisation:
    """Maximise the learned reward with the exact optimum, best-of-n and PPO without a penalty."""
    objective, learned = prepared.objective, prepared.learned
    task, reference_log_probs = objective.task, objective.reference_log_probs

    def point(log_probs: np.ndarray) -> tuple[float, float, float]:
        learned_reward = sequences.expected_reward(log_probs, learned)
        return *kl_and_gold(log_probs, objective), learned_reward

    def optimum(beta: float) -> np.ndarray:
        log_policy, _ = sequences.soft_optimal_policy(objective.log_reference, learned, beta)
        return sequences.response_log_probs(log_policy)

    def measure(policy: Policy) -> dict[str, float]:
        log_probs = sequences.response_log_probs(log_table(task, policy))
        names = "exact_reference_kl", "exact_gold_reward", "exact_reward"
        return dict(zip(names, point(log_probs), strict=True))

    ppo = align(
        task,
        objective.reference,
        learned,
        "ppo",
        sentences=SENTENCES["ppo"],
        beta=None,
        seed=seed,
        measure=measure,
    )
    start = point(reference_log_probs)
    measured_points = {
        "learned optimum": [
            start,
            *(point(optimum(beta)) for beta in OVEROPTIMISATION_BETAS),
        ],
        "best-of-n": [
            point(sequences.best_of_n(reference_log_probs, learned, int(n)))
            for n in OVEROPTIMISATION_BEST_OF
        ],
        "PPO": [
            (row["exact_reference_kl"], row["exact_gold_reward"], row["exact_reward"])
            for row in [*ppo.history.rows, measure(ppo.policy)]
        ],
    }
    paths = {}
    for name, points in measured_points.items():
        kl, gold, learned_reward = np.array(points).T
        shift = start[1] - start[2]
        paths[name] = {"kl": kl, "gold": gold, "learned": learned_reward + shift}
    smallest = OVEROPTIMISATION_BETAS[-1]
    return Overoptimisation(
        paths=paths,
        hacked={
            "PPO on the learned reward without a KL penalty": sequences.response_log_probs(
                log_table(task, ppo.policy)
            ),
            f"the optimum of the learned reward at beta = {smallest:g}": optimum(smallest),
        },
    )
