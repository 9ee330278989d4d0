"""The starting point of the experiments on the token task: a reference model and labelled pairs."""

from typing import Any, NamedTuple

import numpy as np

import minirl
from minirl import rlhf
from minirl.policy import Policy

DEMONSTRATIONS = 2_000


class Labelled(NamedTuple):
    """Pairs of the reference's responses, labelled by the gold utilities.

    The labels are the annotator's probabilities ("soft") and one judgement per pair ("hard").
    """

    preferences: dict[str, rlhf.Preferences]
    sentences: int  # number sampled, including those of identical pairs, which are dropped


class Case:
    """The arithmetic task, a reference model, and the objective of the gold utilities.

    Parameters
    ----------
    rng : Generator
        Draws the demonstrations on which the reference model is fine-tuned.
    beta : float
        The price of KL in the objective, in reward per nat.
    """

    def __init__(self, rng: np.random.Generator, beta: float) -> None:
        self.task = rlhf.arithmetic()
        demonstrations = rlhf.sample_demonstrations(self.task, DEMONSTRATIONS, rng)
        self.reference = rlhf.fine_tune(self.task, demonstrations).policy
        self.gold = self.task.utilities
        self.objective = rlhf.Objective(self.task, self.reference, self.gold, beta)

    def sample_labelled(self, count: int, rng: np.random.Generator) -> Labelled:
        """Labelled pairs of the reference's responses."""
        pairs = rlhf.sample_pairs(self.task, self.reference, count, rng)
        annotator = rlhf.Annotator()
        preferences = {
            "soft": annotator.soft(pairs, self.gold),
            "hard": annotator.hard(pairs, self.gold, rng),
        }
        return Labelled(preferences, 2 * (count + pairs.identical))

    def align(
        self, algorithm: str | minirl.Preset | minirl.Algorithm, **options: Any
    ) -> minirl.Result:
        """`rlhf.align` from the reference; the default is the gold reward with this beta."""
        options = {"rewards": self.gold, "beta": self.objective.beta, **options}
        return rlhf.align(self.task, self.reference, algorithm=algorithm, **options)

    def fit(
        self,
        method: rlhf.DPO,
        preferences: rlhf.Preferences,
        rng: np.random.Generator,
        **options: Any,
    ) -> Policy:
        """The policy that DPO or IPO fits to preferences, starting from the reference."""
        return method.fit(self.task, self.reference, preferences, rng, **options).policy
