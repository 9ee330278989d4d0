"""Every method with a network as the language model: what it reaches, derivatives, interruptions.

The model is an MLP of the features of a context, fine-tuned on demonstrations. All fractions of the
optimum are computed exactly, over the 149,796 responses.
"""

from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
from cat import describe_the_cat

from minirl import load_policy, save_policy, train
from minirl.algorithms import TRPO
from minirl.algorithms.natural_gradient import fisher_vector_product
from minirl.algorithms.policy_gradient import policy_gradient_loss
from minirl.checks import finite_difference
from minirl.envs.addition import addition, operand_features
from minirl.envs.arithmetic import arithmetic
from minirl.envs.token_generation import TokenGenerationVectorEnv
from minirl.envs.verifiable import first_answer_correct, verifiable
from minirl.policy import make_critic
from minirl.presets import NETWORK_TOKENS, PRESETS, TOKEN_ENVIRONMENT
from minirl.rlhf.align import align
from minirl.rlhf.dpo import DPO, path_gradient, path_log_probs, probability_masses
from minirl.rlhf.language_model import full_prefix_policy, log_table, network_policy
from minirl.rlhf.objective import Objective, reward_by_prompt
from minirl.rlhf.preference_losses import PREFERENCE_LOSSES
from minirl.rlhf.preferences import Annotator, sample_pairs
from minirl.rlhf.sft import sample_demonstrations
from minirl.rlhf.sft_network import fine_tune_network
from minirl.rollout import reset
from minirl.training import advantage_stage, new_learner, optimisation_stage, rollout_stage

CAT = describe_the_cat()
VERIFIED = [
    name
    for name in NETWORK_TOKENS
    if name not in ("policy-gradient", "natural-gradient", "trpo", "ppo", "rloo", "grpo")
]


@cache
def reference(seed=3):
    """A network fine-tuned on a corpus that no setting was tuned on."""
    rng, task = np.random.default_rng(seed), arithmetic()
    demonstrations = sample_demonstrations(task, 2000, rng)
    return fine_tune_network(task, demonstrations, network_policy(task, rng)).policy


def random_network(seed=0):
    """A network of the cat task with parameters far from uniform."""
    rng = np.random.default_rng(seed)
    policy = network_policy(CAT, rng, hidden_sizes=(6,))
    return policy.with_parameters(rng.normal(size=policy.network.size))


REFERENCE = random_network()


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("policy-gradient", 0.99),
        ("natural-gradient", 0.995),
        ("trpo", 0.995),
        ("ppo", 0.995),
        ("rloo", 0.99),
        ("grpo", 0.99),
    ],
)
def test_the_fraction_of_the_optimum(name, least):
    task = arithmetic()
    objective = Objective(task, reference(), task.utilities, 0.3)
    result = align(task, reference(), task.utilities, name, sentences=51_200, seed=3)
    assert objective.fraction_of_optimum(result.policy) > least


@pytest.mark.filterwarnings("ignore:update .* moved the policy")
def test_with_the_step_size_of_a_table_the_policy_gradient_collapses():
    """The reason for presets of their own."""
    task = arithmetic()
    objective = Objective(task, reference(), task.utilities, 0.3)
    of_tables = PRESETS[TOKEN_ENVIRONMENT]["policy-gradient"]
    result = align(task, reference(), task.utilities, of_tables, sentences=2560, seed=3)
    assert objective.fraction_of_optimum(result.policy) < 0


@pytest.mark.parametrize("name", VERIFIED)
def test_every_preset_for_verifiable_rewards_raises_the_success_rate(name):
    task = verifiable(first_answer_correct)
    beta = None if name in ("maxrl", "pass-at-k") else 0.01  # these need returns of 0 or 1
    result = align(task, reference(), task.utilities, name, sentences=20_480, beta=beta, seed=3)
    assert reward_by_prompt(task, reference()).mean() < 0.68
    assert reward_by_prompt(task, result.policy).mean() > 0.9


def next_batch(settings, policy, learner=None):
    """A batch of sentences of the cat task, and the learner with the transformed rewards."""
    envs = TokenGenerationVectorEnv(settings.num_envs, CAT)
    state = reset(envs, seed=0)
    rollout, _ = rollout_stage(envs, learner, settings, state, np.random.default_rng(1))
    return advantage_stage(rollout, learner, settings)[:2]


@pytest.mark.parametrize("max_kl", [1e-3, 1e-2, 0.1])
def test_trpos_accepted_steps_keep_the_exact_bound(max_kl):
    """The mean KL per sentence, next-token distributions enumerated at the visited contexts."""
    chosen = NETWORK_TOKENS["trpo"]
    settings = replace(chosen.settings, num_envs=128)
    critic = make_critic(
        TokenGenerationVectorEnv(1, CAT).single_observation_space, np.random.default_rng(0)
    )
    kls = {}
    for name, algorithm in {
        "trpo": replace(chosen.algorithm, max_kl=max_kl),
        "no search": replace(NETWORK_TOKENS["natural-gradient"].algorithm, step_size=30.0),
    }.items():
        learner = new_learner(algorithm, settings, REFERENCE, critic)
        kls[name] = []
        for _ in range(4):
            batch, learner = next_batch(settings, REFERENCE, learner)
            old = log_table(CAT, learner.policy).reshape(-1, 4)[batch.observations]
            learner, metrics = optimisation_stage(
                batch, learner, algorithm, settings, np.random.default_rng(0)
            )
            new = log_table(CAT, learner.policy).reshape(-1, 4)[batch.observations]
            kl = (np.exp(old) * (old - new)).sum(axis=1).sum() / settings.num_envs
            assert metrics["kl"] == pytest.approx(kl, rel=1e-9, abs=1e-12)
            kls[name].append(kl)
    assert max(kls["trpo"]) <= max_kl * (1 + 1e-9)
    assert max(kls["trpo"]) > 0.3 * max_kl  # steps were accepted
    assert max(kls["no search"]) > max_kl


def test_fisher_product_and_gradient_are_finite_differences():
    """The Fisher product is the derivative of the gradient of the mean KL(old || new) at old."""
    settings = replace(NETWORK_TOKENS["trpo"].settings, num_envs=32)
    critic = make_critic(
        TokenGenerationVectorEnv(1, CAT).single_observation_space, np.random.default_rng(0)
    )
    learner = new_learner(TRPO(), settings, REFERENCE, critic)
    batch, _ = next_batch(settings, REFERENCE, learner)
    old, cache = REFERENCE.forward(batch.observations)
    rng = np.random.default_rng(2)
    vector, direction = rng.normal(size=(2, REFERENCE.network.size))
    product = fisher_vector_product(REFERENCE, cache, old, batch.weight, vector)

    def gradient_of_kl(theta):
        policy = REFERENCE.with_parameters(theta)
        new, new_cache = policy.forward(batch.observations)
        slopes = old.grad_kl(new, wrt="other")
        return policy.vjp(new_cache, batch.weight[:, None] * slopes)

    numeric = finite_difference(gradient_of_kl, REFERENCE.parameters, vector)
    np.testing.assert_allclose(product, numeric, rtol=0, atol=1e-6 * np.abs(product).max())
    # Without the Fisher matrix of the tokens it is the product of another matrix.
    without = REFERENCE.vjp(cache, batch.weight[:, None] * REFERENCE.jvp(cache, vector))
    assert np.abs(without - numeric).max() > 0.1 * np.abs(numeric).max()

    gradient = REFERENCE.vjp(cache, policy_gradient_loss(old, batch)[1])

    def loss(theta):
        new = REFERENCE.with_parameters(theta)(batch.observations)
        return policy_gradient_loss(new, batch)[0]

    numeric = finite_difference(loss, REFERENCE.parameters, direction)
    assert gradient @ direction == pytest.approx(float(numeric), rel=1e-7)


@pytest.mark.parametrize("loss", PREFERENCE_LOSSES)
def test_the_gradient_of_every_preference_loss_is_the_finite_difference(loss):
    policy, rng = random_network(5), np.random.default_rng(0)
    pairs = Annotator().soft(sample_pairs(CAT, REFERENCE, 40, rng), CAT.utilities)
    first, second = (CAT.paths(pairs.prompts, side) for side in (pairs.first, pairs.second))
    given = rng.normal(size=(2, len(pairs))) - 3
    method = DPO(beta=0.4, loss=loss)
    _, gradient, _ = method.loss_and_gradient(policy, first, second, given, pairs.labels)
    direction = rng.normal(size=gradient.size)
    numeric = finite_difference(
        lambda theta: method.loss_and_gradient(
            policy.with_parameters(theta), first, second, given, pairs.labels
        )[0],
        policy.parameters,
        direction,
    )
    assert gradient @ direction == pytest.approx(float(numeric), rel=1e-7)


def same_parameters(one, other):
    return one.policy.parameters.tobytes() == other.policy.parameters.tobytes()


@pytest.mark.parametrize("name", ["ppo", "trpo", "grpo-paper"])
def test_a_resumed_run_equals_the_uninterrupted_one(name, tmp_path):
    chosen = NETWORK_TOKENS[name]
    settings = replace(chosen.settings, num_envs=64)
    arguments = {
        "env": partial(TokenGenerationVectorEnv, task=CAT),
        "algorithm": replace(chosen, settings=settings),
        "total_episodes": 256,
        "policy": REFERENCE,
    }
    whole = train(**arguments)
    path = tmp_path / "run.checkpoint"
    part = train(**arguments, checkpoint=path, checkpoint_every=64, stop=lambda h: len(h.rows) == 2)
    assert not same_parameters(part, whole)
    resumed = train(**arguments, resume=path, stop=lambda h: len(h.rows) == 4)
    assert same_parameters(resumed, whole)
    save_policy(whole.policy, tmp_path / "policy.npz", whole.description)
    loaded, _ = load_policy(tmp_path / "policy.npz")
    np.testing.assert_array_equal(log_table(CAT, loaded), log_table(CAT, whole.policy))


def test_training_on_some_prompts_changes_a_network_elsewhere_and_a_table_nowhere():
    task, rng = addition(2), np.random.default_rng(0)
    features = operand_features(task, "one-hot")
    fresh = network_policy(task, rng, prompt_features=features)
    start = fine_tune_network(task, sample_demonstrations(task, 1000, rng), fresh).policy
    prompts, held_out = np.arange(6), np.arange(6, 9)
    table = full_prefix_policy(task, log_table(task, start))
    before = reward_by_prompt(task, start)
    after = {}
    for kind, model in {"network": start, "table": table}.items():
        arguments = {"sentences": 5120, "beta": 0.1, "prompts": prompts}
        learned = align(task, model, task.utilities, "ppo", **arguments).policy
        after[kind] = reward_by_prompt(task, learned)
        assert after[kind][prompts].mean() > 0.9 > 0.6 > before[prompts].mean()
    np.testing.assert_allclose(after["table"][held_out], before[held_out], atol=1e-12)
    assert np.abs(after["network"][held_out] - before[held_out]).max() > 0.1


def remember(policies, policy):
    policies.append(policy)
    return {}


@pytest.mark.parametrize("seed", [0, 1])
def test_dpo_on_a_network_moves_probability_to_responses_that_no_pair_contains(seed):
    """Hard labels of 3,000 pairs. The control is a table with the same reference distribution."""
    task, rng = arithmetic(), np.random.default_rng(seed)
    start = reference(seed)
    pairs = Annotator().hard(sample_pairs(task, start, 3_000, rng), task.utilities, rng)
    objective = Objective(task, start, task.utilities, 0.3)
    table = full_prefix_policy(task, log_table(task, start))
    best, final, unseen = {}, {}, {}
    for kind, model, rate in (("network", start, 0.01), ("table", table, 0.1)):
        policies = []
        method = DPO(beta=0.3, steps=200, learning_rate=rate, minibatch_size=3_000)
        measure = partial(remember, policies)
        learned = method.fit(task, model, pairs, np.random.default_rng(0), measure=measure).policy
        best[kind] = max(objective.fraction_of_optimum(policy) for policy in policies[10::10])
        final[kind] = objective.fraction_of_optimum(learned)
        unseen[kind] = probability_masses(task, learned, pairs)["unseen"]
    before = probability_masses(task, start, pairs)["unseen"]
    assert before < 0.01
    assert unseen["table"] < before / 3
    assert unseen["network"] > 0.05 > 10 * before
    # Both were near the optimum on the way. The network then loses more than the table does.
    assert min(best.values()) > 0.93
    assert final["network"] < min(0.8, final["table"])


def test_a_step_changes_other_responses_by_inner_products_of_scores():
    """Exactly in the limit of small steps, and not at all between two prompts of a table."""
    everything = CAT.paths(np.repeat([0, 1], 40), np.tile(np.arange(40), 2))
    table = full_prefix_policy(CAT, log_table(CAT, REFERENCE))
    for policy in (REFERENCE, table):
        _, cache = path_log_probs(policy, everything)
        scores = np.array([path_gradient(policy, everything, cache, row) for row in np.eye(80)])
        slopes = np.zeros(80)
        slopes[[3, 7]] = 1.0, -1.0  # a pair of responses to the first prompt
        predicted = -scores @ (slopes @ scores)
        direction = -path_gradient(policy, everything, cache, slopes)

        def log_probs(theta, policy=policy):
            return path_log_probs(policy.with_parameters(theta), everything)[0]

        change = finite_difference(log_probs, policy.parameters, direction)
        np.testing.assert_allclose(change, predicted, atol=1e-7 * np.abs(predicted).max())
        elsewhere = np.abs(predicted[40:]).max()
        assert elsewhere == 0 if policy is table else elsewhere > 0.01
