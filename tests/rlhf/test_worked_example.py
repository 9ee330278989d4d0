"""One sentence through the whole chain, number by number: "What is 2x4?" -> "A: 8".

Two answers to one prompt, as a group: "A: 8", worth 2.5 to the human, and "sorry", worth -1 (-0.5
without a digit, -0.5 for `sorry`). The probabilities that policy and reference give to their
tokens, and what remains for all other tokens::

    context        token    policy   rest     reference   rest     log ratio
    2x4?           A:       0.5      0.4      0.25        0.55     +log 2
    2x4?           sorry    0.1               0.2                  -log 2
    2x4? A:        8        0.8      0.2      0.4         0.6      +log 2
    2x4? A: 8      EOS      0.4      0.6      0.8         0.2      -log 2
    2x4? sorry     EOS      0.6      0.4      0.3         0.7      +log 2

With beta = 0.3 each log 2 = 0.69314718 costs or earns 0.20794415. Over its tokens, "A: 8" is twice
as likely as under the reference, "sorry" as likely as there.
"""

from functools import partial

import numpy as np
import pytest

from minirl.advantages import GAE, LeaveOneOut, group_returns, td_errors
from minirl.algorithms import PolicyGradient
from minirl.critic_fit import TableFit
from minirl.envs.arithmetic import arithmetic, exact_match, gold_utility
from minirl.envs.token_generation import TokenGenerationVectorEnv
from minirl.exact import sequences
from minirl.networks import Table
from minirl.policy import Critic
from minirl.rlhf.kl import ReferenceKL, log_ratios
from minirl.rlhf.language_model import full_prefix_policy, log_table
from minirl.rollout import collect_episodes
from minirl.settings import Settings
from minirl.training import advantage_stage, new_learner

A, EIGHT, SORRY, EOS = 4, 2, 6, 8  # of the words 4 6 8 9 A: Great_question! sorry :) and EOS
# Prompt 2 of 4, with 4681 contexts each: the contexts 0 "", 5 "A:", 8 5 + 1 + 2 "A: 8", 7 "sorry".
ROOT, AFTER_A, AFTER_8, AFTER_SORRY, ENDED = 9362, 9367, 9405, 9369, 18724
LOG_2, PENALTY = 0.69314718, 0.20794415

close = partial(np.testing.assert_allclose, rtol=0, atol=1e-8)


def language_model(chances):
    """Uniform, but for the given chances {context: {token: probability}}; the rest is shared."""
    table = np.full((4 * 4681, 9), np.log(1 / 9))
    for context, given in chances.items():
        rest = (1 - sum(given.values())) / (9 - len(given))
        table[context] = np.log(rest)
        for token, probability in given.items():
            table[context, token] = np.log(probability)
    return full_prefix_policy(arithmetic(), table.reshape(4, 4681, 9))


POLICY = language_model(
    {
        ROOT: {A: 0.5, SORRY: 0.1},
        AFTER_A: {EIGHT: 0.8},
        AFTER_8: {EOS: 0.4},
        AFTER_SORRY: {EOS: 0.6},
    }
)
REFERENCE = language_model(
    {
        ROOT: {A: 0.25, SORRY: 0.2},
        AFTER_A: {EIGHT: 0.4},
        AFTER_8: {EOS: 0.8},
        AFTER_SORRY: {EOS: 0.3},
    }
)


def critic():
    """Values 1, 1.5, 2 along "A: 8", -0.5 after "sorry"; 7 after the end, which must not count."""
    values = np.zeros(18_725)
    values[[ROOT, AFTER_A, AFTER_8, AFTER_SORRY, ENDED]] = 1.0, 1.5, 2.0, -0.5, 7.0
    return Critic(Table(18_725, 1), values)


class Scripted:
    """The policy, saying "A: 8" in the first column and "sorry" in the second."""

    __call__ = staticmethod(POLICY)

    def __init__(self):
        self.script = iter([[A, SORRY], [EIGHT, EOS], [EOS, 3]])

    def act(self, observations, rng):
        return np.array(next(self.script))


def written(utility=gold_utility):
    task = arithmetic(utility)
    envs = TokenGenerationVectorEnv(2, task, task.utilities)
    seed = 4  # draws the prompt "What is 2x4?"
    return collect_episodes(envs, Scripted(), critic(), None, max_steps=6, seed=seed, group_size=2)


def evaluated(advantages, utility=gold_utility):
    settings = Settings(
        num_envs=2,
        rollout_steps=6,
        whole_episodes=True,
        group_size=2,
        advantages=advantages,
        reward_transform=ReferenceKL(REFERENCE, 0.3),
        critic_fit=TableFit(),
    )
    learner = new_learner(PolicyGradient(), settings, POLICY, critic())
    return advantage_stage(written(utility), learner, settings)


def columns(*rows):
    """Arrays (T, E) as they are drawn: a row a step, "A: 8" left, "sorry" right."""
    return np.array(rows)


VALID = columns([True, True], [True, True], [True, False])


def test_the_numbers_of_the_tokens_and_contexts():
    task = arithmetic()
    assert [task.vocabulary[token] for token in (A, EIGHT, SORRY, EOS)] == [
        "A:",
        "8",
        "sorry",
        "<eos>",
    ]
    start = task.prompt("What is 2x4?") * task.num_contexts
    contexts = [start + task.response(text) for text in ("", "A:", "A: 8", "sorry")]
    assert contexts == [ROOT, AFTER_A, AFTER_8, AFTER_SORRY]
    assert task.num_observations - 1 == ENDED


def test_rollout():
    rollout = written()
    assert np.array_equal(
        rollout.observations,
        columns([ROOT, ROOT], [AFTER_A, AFTER_SORRY], [AFTER_8, ENDED]),
    )
    assert np.array_equal(rollout.actions, columns([A, SORRY], [EIGHT, EOS], [EOS, 3]))
    assert np.array_equal(rollout.valid, VALID)
    assert np.array_equal(rollout.terminated, columns([False, False], [False, True], [True, False]))
    assert not rollout.truncated.any()
    assert np.array_equal(rollout.time[VALID], columns([0, 0], [1, 1], [2, 0])[VALID])
    # log 0.5, log 0.1; log 0.8, log 0.6; log 0.4
    close(
        rollout.log_probs[VALID], [-0.69314718, -2.30258509, -0.22314355, -0.51082562, -0.91629073]
    )
    assert np.array_equal(rollout.rewards, columns([0.0, 0.0], [0.0, -1.0], [2.5, 0.0]))
    assert np.array_equal(rollout.values[VALID], [1.0, 1.0, 1.5, -0.5, 2.0])
    assert np.array_equal(rollout.next_values[VALID], [1.5, -0.5, 2.0, 7.0, 7.0])
    assert rollout.episode_returns.tolist() == [2.5, -1.0]
    assert rollout.episode_lengths.tolist() == [3, 2]


def test_the_reward_under_exact_match():
    rollout = written(exact_match)
    assert np.array_equal(rollout.rewards, columns([0.0, 0.0], [0.0, 0.0], [1.0, 0.0]))


def test_log_probabilities_of_the_reference():
    rollout = written()
    # log 0.25, log 0.2; log 0.4, log 0.3; log 0.8
    theirs = REFERENCE(rollout.observations[VALID]).log_prob(rollout.actions[VALID])
    close(theirs, [-1.38629436, -1.60943791, -0.91629073, -1.20397280, -0.22314355])
    close(log_ratios(REFERENCE, rollout), columns([LOG_2, -LOG_2], [LOG_2, LOG_2], [-LOG_2, 0.0]))
    # Of whole sentences: 0.5 0.8 0.4 = 0.16 against 0.25 0.4 0.8 = 0.08; 0.06 against 0.06.
    task = arithmetic()
    sentences = [2, 2], [task.response("A: 8"), task.response("sorry")]
    for model, expected in ((POLICY, [0.16, 0.06]), (REFERENCE, [0.08, 0.06])):
        close(np.exp(sequences.response_log_probs(log_table(task, model))[sentences]), expected)


def test_penalised_rewards_and_the_kl():
    rollout = written()
    beta, rewards, metrics = ReferenceKL(REFERENCE, 0.3).transform(0.3, rollout, POLICY)
    close(
        rewards,
        columns([-PENALTY, PENALTY], [-PENALTY, -1 - PENALTY], [2.5 + PENALTY, 0.0]),
    )
    assert beta == 0.3
    # Log ratios of the sentences: log 2 and 0. Half of: log 2; log(2)^2 / 2; 1/2 - 1 + log 2.
    assert metrics["reference_beta"] == 0.3
    close(metrics["reference_k1"], 0.34657359)
    close(metrics["reference_k2"], 0.12011325)
    close(metrics["reference_k3"], 0.09657359)
    # Next tokens, with log(8/11) = -0.31845373, log 3 = 1.09861229, log(4/7) = -0.55961579:
    #   2x4?         0.5 log 2 - 0.1 log 2 + 0.4 log(0.4/0.55) = 0.14987738
    #   2x4? A:      0.8 log 2 + 0.2 log(0.2/0.6)              = 0.33479529
    #   2x4? A: 8   -0.4 log 2 + 0.6 log(0.6/0.2)              = 0.38190850
    #   2x4? sorry   0.6 log 2 + 0.4 log(0.4/0.7)              = 0.19204199
    # "A: 8" passes 0.86658117, "sorry" 0.34191937.
    close(metrics["reference_kl_along_prefixes"], 0.60425027)


def test_td_errors():
    """r' + V(next) - V: -0.2079 + 1.5 - 1, and so on; after an end V(next) is 0, not 7."""
    rollout = written()
    _, rewards, _ = ReferenceKL(REFERENCE, 0.3).transform(0.3, rollout, POLICY)
    deltas = td_errors(rewards, rollout.values, rollout.next_values, rollout.terminated, 1.0)
    close(deltas[VALID], [0.29205585, -1.29205585, 0.29205585, -0.70794415, 0.70794415])


def test_the_batch_under_gae():
    batch, learner, metrics = evaluated(GAE(discount=1.0, lam=0.95))
    # "A: 8":  A_2 = 0.70794415, A_1 = 0.29205585 + 0.95 A_2, A_0 = 0.29205585 + 0.95 A_1
    # "sorry": A_1 = -0.70794415, A_0 = -1.29205585 + 0.95 A_1
    close(batch.advantages, [1.20842850, -1.96460279, 0.96460279, -0.70794415, 0.70794415])
    # advantages + values (1, 1, 1.5, -0.5, 2)
    close(batch.returns, [2.20842850, -0.96460279, 2.46460279, -1.20794415, 2.70794415])
    assert np.array_equal(batch.values, [1.0, 1.0, 1.5, -0.5, 2.0])
    assert np.array_equal(batch.weight, [0.5] * 5)  # one over two sentences, not over five tokens
    assert batch.episodes.tolist() == [0, 1, 0, 1, 0]
    assert batch.observations.tolist() == [ROOT, ROOT, AFTER_A, AFTER_SORRY, AFTER_8]
    assert batch.actions.tolist() == [A, SORRY, EIGHT, EOS, EOS]
    close(batch.log_probs, [-0.69314718, -2.30258509, -0.22314355, -0.51082562, -0.91629073])
    assert learner.transform_state == metrics["reference_beta"] == 0.3


def test_the_batch_leaving_one_out():
    """Returns 2.5 - 0.20794415 and -1: each is judged by the other."""
    batch, _, _ = evaluated(LeaveOneOut())
    close(batch.advantages, [3.29205585, -3.29205585, 3.29205585, -3.29205585, 3.29205585])
    # To go: -p - p + 2.5 + p, then 2.5 from the second token on, then 2.5 + p; p = 0.20794415.
    close(batch.returns, [2.29205585, -1.0, 2.5, -1.20794415, 2.70794415])
    assert np.array_equal(batch.weight, [0.5] * 5)
    rollout = written()
    assert rollout.group.tolist() == [0, 0]
    returns, means, sizes = group_returns(rollout)  # of the raw rewards
    assert (returns.tolist(), means.tolist(), sizes.tolist()) == ([2.5, -1.0], [0.75] * 2, [2, 2])


@pytest.mark.parametrize(
    ("estimator", "advantages"),
    [
        # As above with rewards 1 and 0 at the ends: deltas -0.79205585 and 0.29205585 there.
        (GAE(1.0, 0.95), [-0.14532150, -1.01460279, -0.46039721, 0.29205585, -0.79205585]),
        # 1 - 0.20794415 against 0.
        (LeaveOneOut(), [0.79205585, -0.79205585, 0.79205585, -0.79205585, 0.79205585]),
    ],
)
def test_the_batch_under_exact_match(estimator, advantages):
    batch, _, _ = evaluated(estimator, exact_match)
    close(batch.advantages, advantages)
