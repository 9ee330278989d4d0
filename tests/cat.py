"""A second, small token task, as a reader would write one."""

from collections.abc import Sequence

import numpy as np

from minirl.envs.token_tasks import EOS, TokenTask
from minirl.policy import Policy
from minirl.rlhf.language_model import full_prefix_policy

NOUN = {"Describe the cat": "cat", "Describe the dog": "dog"}


def utility(prompt: str, words: Sequence[str], cut: bool) -> float:
    """The animal should be named; `soft` pleases if it is a cat; a cut answer does not."""
    noun = NOUN[prompt]
    pleasure = 1.0 * (noun in words) - 1.0 * any(
        word in words for word in NOUN.values() if word != noun
    )
    pleasure += 0.5 * ("soft" in words) * (noun == "cat")
    return pleasure - 0.25 * cut


def demonstrations(prompt: str) -> dict[str, float]:
    """What people write."""
    noun = NOUN[prompt]
    return {f"soft {noun}": 0.4, noun: 0.35, "soft": 0.15, "soft soft": 0.05, "": 0.05}


def describe_the_cat() -> TokenTask:
    """Two prompts, three words, up to three of them: 13 contexts and 40 responses each."""
    return TokenTask(
        prompts=tuple(NOUN),
        vocabulary=("cat", "dog", "soft", EOS),
        max_words=3,
        utility=utility,
        demonstrations=demonstrations,
    )


def verdicts(task: TokenTask) -> np.ndarray:
    """1 for a right response: it names the cat (prompt 0), or is exactly "soft dog" (prompt 1)."""
    words = [task.words(response) for response in range(task.utilities.shape[1])]
    right = [["cat" in said for said in words], [said == ("soft", "dog") for said in words]]
    return np.array(right, dtype=float)


def random_policy(rng: np.random.Generator, scale: float = 1.5) -> Policy:
    """A policy of the cat task with normal logits."""
    task = describe_the_cat()
    logits = scale * rng.standard_normal((2, task.num_contexts, 4))
    return full_prefix_policy(task, logits)


def always_the_same() -> Policy:
    """A policy of the cat task that answers 'soft soft' and nothing else."""
    task = describe_the_cat()
    log_probs = np.full((2, task.num_contexts, 4), -1e3)
    log_probs[:, :, 2] = 0
    log_probs[:, task.response("soft soft"), [2, 3]] = [-1e3, 0]
    return full_prefix_policy(task, log_probs)
