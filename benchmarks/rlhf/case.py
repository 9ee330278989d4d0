"""What the experiments on the token task start from: a reference model and labelled pairs."""

import numpy as np

from minirl import rlhf
from minirl.policy import Policy
from minirl.rlhf.preferences import Pairs

DEMONSTRATIONS = 2_000


def reference_model(rng: np.random.Generator) -> Policy:
    """The arithmetic task's model, fine-tuned on demonstrations drawn with `rng`."""
    task = rlhf.arithmetic()
    return rlhf.fine_tune(task, rlhf.sample_demonstrations(task, DEMONSTRATIONS, rng)).policy


def labelled_pairs(
    reference: Policy, count: int, rng: np.random.Generator
) -> tuple[Pairs, dict[str, rlhf.Preferences]]:
    """Pairs of the reference's answers, labelled by the gold utilities.

    The labels are the annotator's probabilities ("soft") and one judgement per pair ("hard").
    """
    task, annotator = rlhf.arithmetic(), rlhf.Annotator()
    pairs = rlhf.sample_pairs(task, reference, count, rng)
    return pairs, {
        "soft": annotator.soft(pairs, task.utilities),
        "hard": annotator.hard(pairs, task.utilities, rng),
    }
