"""What every method reaches on the arithmetic task, as fractions of the exact optimum, seeded.

The references are fine-tuned on corpora, and everything is sampled with seeds, that no setting was
tuned on. All fractions are computed exactly, by enumeration.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.special import log_softmax

from minirl.envs.arithmetic import arithmetic
from minirl.exact import sequences
from minirl.rlhf.align import align
from minirl.rlhf.dpo import DPO
from minirl.rlhf.language_model import log_table
from minirl.rlhf.objective import Objective
from minirl.rlhf.preferences import Annotator, sample_pairs
from minirl.rlhf.reward_model import bag_of_words, fit_reward_model
from minirl.rlhf.sft import fine_tune, sample_demonstrations

TASK = arithmetic()
BETA = 0.3
SEEDS = [3, 4]
PRESET = DPO()
SENTENCES = {
    "ppo": 51_200,
    "trpo": 61_440,
    "policy-gradient": 51_200,
    "rloo": 51_200,
    "grpo": 51_200,
    "natural-gradient": 61_440,
}
seeds = pytest.mark.parametrize("seed", SEEDS)


@cache
def objective(seed):
    """The reference of a corpus, with the gold utilities."""
    corpus = sample_demonstrations(TASK, 2000, np.random.default_rng(seed))
    return Objective(TASK, fine_tune(TASK, corpus).policy, TASK.utilities, BETA)


@cache
def aligned(name, seed):
    reference = objective(seed).reference
    return align(TASK, reference, TASK.utilities, name, sentences=SENTENCES[name], seed=seed)


@cache
def preferences(seed, count, labels):
    rng = np.random.default_rng(100 + seed)
    pairs = sample_pairs(TASK, objective(seed).reference, count, rng)
    if labels == "soft":
        return Annotator().soft(pairs, TASK.utilities)
    return Annotator().hard(pairs, TASK.utilities, rng)


@cache
def preferred(seed, count=3000, labels="soft", method=PRESET):
    """The policy of DPO."""
    rng = np.random.default_rng(seed)
    pairs = preferences(seed, count, labels)
    return method.fit(TASK, objective(seed).reference, pairs, rng).policy


def responses(policy):
    return sequences.response_log_probs(log_table(TASK, policy))


@seeds
@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("ppo", 0.985),
        ("trpo", 0.993),  # with damping 0.1 instead of 1e-3 it ends at 0.987
        ("policy-gradient", 0.97),
        ("rloo", 0.97),
        ("grpo", 0.96),
        ("natural-gradient", 0.95),
    ],
)
def test_what_reinforcement_learning_reaches(name, least, seed):
    result = aligned(name, seed)
    assert objective(seed).fraction_of_optimum(result.policy) >= least
    assert result.history.finished_episodes == SENTENCES[name]


@seeds
def test_trpo_never_leaves_its_trust_region(seed):
    """Per sentence: max_kl = 0.01 nats between one policy and the next."""
    kl = aligned("trpo", seed).history.columns()["kl"]
    assert len(kl) == 60
    assert kl.max() <= 0.01
    assert np.median(kl) > 0.005  # and it makes use of it
    assert aligned("ppo", seed).history.columns()["kl"].max() > 0.1  # which PPO does not promise


@seeds
def test_what_dpo_reaches_with_soft_labels(seed):
    assert objective(seed).fraction_of_optimum(preferred(seed)) >= 0.98


@seeds
def test_what_dpo_reaches_with_hard_labels(seed):
    """Ten times the labels are worth more; four times the steps on the same labels are harmful."""
    reached = {
        (count, steps): objective(seed).fraction_of_optimum(
            preferred(seed, count, "hard", DPO(steps=steps))
        )
        for count, steps in ((3000, 150), (3000, 600), (30_000, 600))
    }
    assert reached[3000, 150] >= 0.80
    assert reached[30_000, 600] >= 0.93
    assert reached[3000, 600] < reached[3000, 150] - 0.05


def test_ipo_reaches_an_optimum_of_its_own():
    """Win rates lie in [0, 1]: at the same beta it stays nearer to the reference than DPO."""
    seed = SEEDS[0]
    reference = responses(objective(seed).reference)
    win_rates = np.empty(TASK.utilities.shape)
    for row, probs, utilities in zip(win_rates, np.exp(reference), TASK.utilities, strict=True):
        values, of = np.unique(utilities.round(12), return_inverse=True)
        masses = np.bincount(of, probs)
        row[:] = ((1 / (1 + np.exp(values - values[:, None]))) @ masses)[of]
    own = log_softmax(reference + win_rates / BETA, axis=1)
    learned = preferred(seed, method=DPO(loss="ipo"))
    assert sequences.kl(responses(learned), own) < 0.01
    assert sequences.kl(responses(learned), reference) > 0.15
    assert 0.55 < objective(seed).fraction_of_optimum(learned) < 0.62


def learned_rewards(seed, count, labels):
    model = fit_reward_model(bag_of_words(TASK), preferences(seed, count, labels), ridge=0.1)
    return model.rewards()


def along_the_optimum(seed, learned):
    """Gold and learned reward of the exact optimum of the learned reward, beta 20 -> 0.02."""
    reference = responses(objective(seed).reference)
    optima = [
        log_softmax(reference + learned / beta, axis=1) for beta in np.geomspace(20, 0.02, 30)
    ]
    return np.array(
        [
            [sequences.expected_reward(optimum, table) for optimum in optima]
            for table in (TASK.utilities, learned)
        ]
    )


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_the_learned_reward_is_optimised_beyond_what_it_knows(seed):
    """3000 soft labels. The learned reward only rises; gold rises, and falls below where it began.

    A linear model cannot see that courtesy annoys in the end; its optimum is flattery.
    """
    rewards = learned_rewards(seed, 3000, "soft")
    gold, learned = along_the_optimum(seed, rewards)
    start = objective(seed).value(objective(seed).reference).reward
    assert (np.diff(learned) > 0).all()
    assert gold[0] == pytest.approx(start, abs=0.2)
    assert gold.max() >= 3.21
    assert 10 < gold.argmax() < 25
    assert gold[-1] == pytest.approx(1.0, abs=0.07)
    assert gold[-1] < start - 0.2
    favourites = [TASK.words(int(number)) for number in rewards.argmax(axis=1)]
    assert all(words.count("Great_question!") + words.count(":)") == 3 for words in favourites)


def test_so_it_is_with_hard_labels():
    """Label noise tells some models better: of 60 label seeds 59 end below the reference."""
    start = objective(3).value(objective(3).reference).reward
    ends = []
    for label_seed in range(3, 13):
        rng = np.random.default_rng(label_seed)
        pairs = sample_pairs(TASK, objective(3).reference, 3000, rng)
        labelled = Annotator().hard(pairs, TASK.utilities, rng)
        rewards = fit_reward_model(bag_of_words(TASK), labelled, ridge=0.1).rewards()
        gold, learned = along_the_optimum(3, rewards)
        assert (np.diff(learned) > 0).all()
        assert gold.max() >= 3.1
        ends.append(gold[-1])
    assert sum(end < start for end in ends) >= 9


def test_ppo_falls_from_its_peak_without_the_penalty_and_stays_up_with_it():
    """A reward model of 300 labels, the gold reward measured beside it.

    So few labels do not always make a model that serves at beta = 0.3; this one does, and misleads
    further away: that is made sure of first.
    """
    seed = 3
    exact, rewards = objective(seed), learned_rewards(seed, 300, "hard")
    start = exact.value(exact.reference).reward
    best = replace(exact, rewards=rewards)
    assert exact.value(best.optimal_policy).reward > 3
    assert along_the_optimum(seed, rewards)[0, -1] < start

    gold = {}
    for beta in (None, BETA):
        result = align(
            TASK,
            exact.reference,
            rewards,
            "ppo",
            sentences=51_200,
            beta=beta,
            seed=seed,
            measure=exact.measure,
        )
        during = result.history.columns()["exact_reward"]
        gold[beta] = during.max(), exact.value(result.policy).reward
        assert best.value(result.policy).reward > best.value(exact.reference).reward + 1
    peak, end = gold[None]
    assert end < peak - 0.3
    peak, end = gold[BETA]
    assert end > 3.0
    assert end > peak - 0.3
