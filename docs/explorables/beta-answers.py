"""What beta does to the answers; the JavaScript half is beta-answers.js.

The setting is corpus 10 of notebook 9. The data determine all 37,449 answers to each prompt without
rounding: the reference is a bigram model, the learned reward is linear in a bag of words, and the
gold rewards are stored answer by answer. `compute` therefore sums over all answers, as minirl does.
"""

import string
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from minirl import rlhf
from minirl.exact import sequences
from minirl.rlhf.reward_model import RewardModel

TITLE = "What beta does to the answers"
CAPTION = (
    "Try: move $\\beta$ to the left until the gold reward falls, and see which answer is then the "
    "most likely. The policy $\\pi^* \\propto \\pi_{\\text{ref}}\\,e^{r/\\beta}$ maximises the "
    "reward minus $\\beta$ times the KL to the reference. The bars show its most likely answers "
    "to the prompt, with their probabilities under this policy and under the reference. The "
    "curves show the reward of this policy against its KL, for each $\\beta$. At the dot of the "
    "maximised reward, this reward rises by $\\beta$ per additional nat of KL. A smaller $\\beta$ "
    "allows a larger KL. If the learned reward is maximised, the gold reward of the same policy "
    "first rises with the KL and then falls: this is over-optimisation. The data are those of "
    "corpus 10 of notebook 9, and every number is a sum over all 37,449 answers."
)
FUNCTIONS = [
    "minirl.exact.sequences.soft_optimal_policy",
    "minirl.exact.sequences.reward_kl_frontier",
]
SECTIONS = ("9.5",)
CASES = [
    {"beta": 0.3, "reward": "learned", "prompt": "2"},
    {"beta": 0.02, "reward": "learned", "prompt": "0"},
    {"beta": 0.02, "reward": "gold", "prompt": "3"},
    {"beta": 20.0, "reward": "gold", "prompt": "1"},
]
BETAS = 10 ** np.linspace(1.3, -1.7, 61)  # of the curves
SHOWN = 6  # answers


@cache
def setting() -> tuple[rlhf.Objective, RewardModel, dict[str, np.ndarray]]:
    """Corpus 10 of notebook 9: the reference, the reward model, both rewards (X, N)."""
    task, rng = rlhf.arithmetic(), np.random.default_rng(10)
    gold = task.utilities
    reference = rlhf.fine_tune(task, rlhf.sample_demonstrations(task, 2000, rng)).policy
    pairs = rlhf.sample_pairs(task, reference, 30_000, rng)
    labels = rlhf.Annotator().hard(pairs, gold, rng).rows(slice(0, 3000))
    objective = rlhf.Objective(task, reference, gold, beta=0.3)
    log_probs = objective.reference_log_probs
    model = rlhf.fit_reward_model(rlhf.bag_of_words(task), labels).centred(log_probs)
    means = (np.exp(log_probs) * gold).sum(axis=1)
    model = replace(model, offsets=model.offsets + means)
    return objective, model, {"gold": gold, "learned": model.rewards()}


def data() -> dict[str, Any]:
    """All that determines the reference and the two rewards."""
    objective, model, rewards = setting()
    task = objective.task
    words, prompts = task.num_words, len(task.prompts)
    by_prompt = model.weights[: 4 * prompts].reshape(prompts, 4)
    shared = model.weights[4 * prompts :]
    levels, table = np.unique(rewards["gold"][0], return_inverse=True)
    letters = string.ascii_letters + string.digits
    return {
        "prompts": task.prompts,
        "words": task.vocabulary[:-1],
        "maxWords": task.max_words,
        # the next token after nothing and after each word: EOS is the last column
        "logReference": objective.log_reference[:, : words + 1].tolist(),
        "digits": by_prompt.tolist(),
        "others": shared[:-1].tolist(),
        "cut": shared[-1],
        "offsets": model.offsets.tolist(),
        # for the first prompt; the right digit of prompt x is word x
        "goldLevels": dict(zip(letters, levels.tolist(), strict=False)),
        "gold": "".join(letters[level] for level in table),
    }


@cache
def curves(reward: str, prompt: int) -> dict[str, list[float]]:
    """Reward and KL of the optimum for each of `BETAS`, and the gold reward of the same policy."""
    objective, _, rewards = setting()
    rows = slice(prompt, prompt + 1)
    log_probs = objective.reference_log_probs[rows]
    frontier = sequences.reward_kl_frontier(
        objective.log_reference[rows], rewards[reward][rows], BETAS
    )
    golds = []
    for beta in BETAS:
        weights = log_probs + rewards[reward][rows] / beta
        weights -= np.logaddexp.reduce(weights, axis=1)
        golds.append(sequences.expected_reward(weights, rewards["gold"][rows]))
    return {"kls": frontier.kls.tolist(), "rewards": frontier.rewards.tolist(), "golds": golds}


def numbers(values: dict[str, Any]) -> dict[str, Any]:
    objective, _, rewards = setting()
    beta, prompt, reward = values["beta"], int(values["prompt"]), values["reward"]
    rows = slice(prompt, prompt + 1)
    log_reference, maximised = objective.log_reference[rows], rewards[reward][rows]
    policy, _ = sequences.soft_optimal_policy(log_reference, maximised, beta)
    value = sequences.objective(policy, log_reference, maximised, beta)
    log_probs = sequences.response_log_probs(policy)
    order = np.argsort(-log_probs[0].round(9), kind="stable")[:SHOWN]
    return {
        "prompt": objective.task.prompts[prompt],
        "objective": value.objective,
        "reward": value.reward,
        "kl": value.kl,
        "gold": sequences.expected_reward(log_probs, rewards["gold"][rows]),
        "texts": [objective.task.text(int(answer)) for answer in order],
        "probabilities": np.exp(log_probs[0, order]).tolist(),
        "references": np.exp(objective.reference_log_probs[prompt, order]).tolist(),
        "answerGolds": rewards["gold"][prompt, order].tolist(),
        **curves(reward, prompt),
        "bestKls": curves("gold", prompt)["kls"],
        "bestGolds": curves("gold", prompt)["golds"],
        "largestKl": max(max(curves(kind, prompt)["kls"]) for kind in rewards),
        "largestReward": max(max(curves(kind, prompt)["rewards"]) for kind in rewards),
    }
