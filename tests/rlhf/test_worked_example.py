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

from minirl.advantages import GAE, LeaveOneOut
from minirl.algorithms import PolicyGradient
from minirl.critic_fit import TableFit
from minirl.envs.arithmetic import arithmetic
from minirl.envs.token_generation import TokenGenerationVectorEnv
from minirl.networks import Table
from minirl.policy import Critic
from minirl.rlhf.kl import ReferenceKL
from minirl.rlhf.language_model import full_prefix_policy
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


def written():
    task = arithmetic()
    envs = TokenGenerationVectorEnv(2, task, task.utilities)
    seed = 4  # draws the prompt "What is 2x4?"
    return collect_episodes(envs, Scripted(), critic(), None, max_steps=6, seed=seed, group_size=2)


def evaluated(advantages):
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
    return advantage_stage(written(), learner, settings)


VALID = np.array([[True, True], [True, True], [True, False]])  # "A: 8" left, "sorry" right


def test_penalised_rewards_and_the_kl():
    _, rewards, metrics = ReferenceKL(REFERENCE, 0.3).transform(0.3, written(), POLICY)
    penalised = [[-PENALTY, PENALTY], [-PENALTY, -1 - PENALTY], [2.5 + PENALTY, 0.0]]
    close(rewards, penalised)
    # Log ratios of the sentences: log 2 and 0. Half of: log 2; log(2)^2 / 2; 1/2 - 1 + log 2.
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


def test_the_batch_under_gae():
    batch, learner, metrics = evaluated(GAE(discount=1.0, lam=0.95))
    # r' + V(next) - V, where V after the end is 0, not 7:
    # "A: 8":  A_2 = 0.70794415, A_1 = 0.29205585 + 0.95 A_2, A_0 = 0.29205585 + 0.95 A_1
    # "sorry": A_1 = -0.70794415, A_0 = -1.29205585 + 0.95 A_1
    close(batch.advantages, [1.20842850, -1.96460279, 0.96460279, -0.70794415, 0.70794415])
    # advantages + values (1, 1, 1.5, -0.5, 2)
    close(batch.returns, [2.20842850, -0.96460279, 2.46460279, -1.20794415, 2.70794415])
    assert np.array_equal(batch.weight, [0.5] * 5)  # one over two sentences, not over five tokens
    assert batch.episodes.tolist() == [0, 1, 0, 1, 0]
    assert learner.transform_state == metrics["reference_beta"] == 0.3


def test_the_batch_leaving_one_out():
    """Returns 2.5 - 0.20794415 and -1: each is judged by the other."""
    batch, _, _ = evaluated(LeaveOneOut())
    close(batch.advantages, [3.29205585, -3.29205585, 3.29205585, -3.29205585, 3.29205585])
    # To go: -p - p + 2.5 + p, then 2.5 from the second token on, then 2.5 + p; p = 0.20794415.
    close(batch.returns, [2.29205585, -1.0, 2.5, -1.20794415, 2.70794415])
