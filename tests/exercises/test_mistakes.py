"""A known mistake, given as the answer, is wrong and gets the hint of this mistake, no other."""

import importlib
import pkgutil

import numpy as np
import pytest

from minirl import exercises
from minirl.exercises import overoptimisation, verdict


def untested(gae):
    """A test that calls the gae and never looks at the result."""
    no = np.zeros((1, 1), bool)
    gae(*np.zeros((3, 1, 1)), no, no, discount=1.0, lam=1.0)


# Answers for checks whose mistakes depend on the answer, or whose answer is not a function.
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
    """The comparisons of a check: (compare function, exact arguments, options) of each."""
    comparisons = []

    def recorder(compare):
        def record(_, *exact, **options):
            comparisons.append((compare, exact, options))
            return verdict.RIGHT

        return record

    with pytest.MonkeyPatch.context() as patch:
        for compare in (verdict.compare, verdict.compare_function):
            patch.setattr(module, compare.__name__, recorder(compare), raising=False)
        for answer in ANSWERS.get(name, [lambda *_: 0.0]):
            getattr(module, name)(answer)
    return comparisons


def hints_of(mistakes):
    """From the hint as a sentence to the mistake; compare_function's are functions with names."""
    if isinstance(mistakes, dict):
        return {f"{hint}.": mistake for hint, mistake in mistakes.items()}
    assert all(mistake.__name__.isidentifier() for mistake in mistakes)
    hints = {" ".join(mistake.__doc__.split()): mistake for mistake in mistakes}
    assert len(hints) == len(mistakes)
    return hints


def uncapitalised(text):
    return text[0].lower() + text[1:]


@pytest.mark.parametrize(
    ("module", "name"), CHECKS, ids=[f"{m.__name__.split('.')[-1]}-{name}" for m, name in CHECKS]
)
def test_each_known_mistake_gets_its_own_hint(module, name):
    tested = 0
    for compare, exact, options in comparisons(module, name):
        for hint, mistake in hints_of(options["mistakes"]).items():
            result = compare(mistake, *exact, **options)
            assert result.outcome == "wrong"
            shown = result.message.removeprefix("Not yet: ")
            assert uncapitalised(shown) == uncapitalised(hint)
            tested += 1
    assert tested


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_a_beta_that_is_five_percent_off_is_wrong(factor):
    [(_, (exact, _), _)] = comparisons(overoptimisation, "best_beta")
    result = overoptimisation.best_beta(lambda *case: factor * exact(*case))
    assert result.message.startswith("Not yet in case 1 of 2: off by")
    assert overoptimisation.best_beta(exact)
