"""A named mistake, given as the answer, gets its own message: wrong, and not another's."""

import importlib
import pkgutil

import numpy as np
import pytest

from minirl import exercises
from minirl.exercises import overoptimisation, verdict


def untested(gae):
    """Calls the gae, and says nothing of it."""
    no = np.zeros((1, 1), bool)
    gae(*np.zeros((3, 1, 1)), no, no, discount=1.0, lam=1.0)


# The mistakes of these checks depend on the answer, or it is no function.
ANSWERS = {
    "diagnosis": [{}],
    "far_but_free": [[0.0, 0.0, 0.0], [0.0, 1.0, 2.0], [0.4, 0.59, 0.01]],
    "gae_test": [untested],
    "unchanged": ["A", "B", "C"],
    "invariances": [[True] * 4],
    "packing_by_hand": [[0, 0, 0]],
    "which_end": [[True] * 4],
}
CHECKS = [
    (module, name)
    for _, path, _ in pkgutil.iter_modules(exercises.__path__, "minirl.exercises.")
    if path != verdict.__name__
    for module in [importlib.import_module(path)]
    for name in module.__all__
]


def comparisons(module, name):
    """What the check compares answers with: (judge, exact side, options) of each comparison."""
    found = []

    def noting(judge):
        def note(_, *exact, **options):
            found.append((judge, exact, options))
            return verdict.RIGHT

        return note

    with pytest.MonkeyPatch.context() as patch:
        for judge in (verdict.compare, verdict.compare_function):
            patch.setattr(module, judge.__name__, noting(judge), raising=False)
        for answer in ANSWERS.get(name, [lambda *_: 0.0]):
            getattr(module, name)(answer)
    return found


def one_line(text):
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("module", "name"), CHECKS, ids=[f"{m.__name__.split('.')[-1]}-{name}" for m, name in CHECKS]
)
def test_every_named_mistake_is_told_in_its_own_words(module, name):
    named = 0
    for judge, exact, options in comparisons(module, name):
        mistakes = options["mistakes"]
        if isinstance(mistakes, dict):
            hints = {f"{hint}.": mistaken for hint, mistaken in mistakes.items()}
        else:
            hints = {one_line(mistaken.__doc__): mistaken for mistaken in mistakes}
            assert len(hints) == len(mistakes)
        for hint, mistaken in hints.items():
            told = judge(mistaken, *exact, **options)
            assert told.outcome == "wrong"
            assert told.message.startswith("Not yet: ")
            assert told.message.removeprefix("Not yet: ")[0].lower() == hint[0].lower()
            assert told.message.removeprefix("Not yet: ")[1:] == hint[1:]
            named += 1
    assert named


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_a_beta_that_is_five_percent_off_is_wrong(factor):
    [(_, (exact, _), _)] = comparisons(overoptimisation, "best_beta")
    found = overoptimisation.best_beta(lambda *case: factor * exact(*case))
    assert found.message.startswith("Not yet in case 1 of 2: off by")
    assert overoptimisation.best_beta(exact)
