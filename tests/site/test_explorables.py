"""The explorables compute minirl's numbers: their JavaScript runs here in V8, without a browser."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from py_mini_racer import MiniRacer

DOCS = Path(__file__).parents[2] / "docs"
sys.path.append(str(DOCS))

from building import explorables  # noqa: E402

NAMES = explorables.names()


def computed(name, values):
    """What `compute` of NAME.js returns."""
    engine = MiniRacer()
    for script in ("explorable", name):
        engine.eval((DOCS / "explorables" / f"{script}.js").read_text())
    engine.eval(explorables.data_script(name))
    arguments = f"{json.dumps(values)}, explorables.data['{name}']"
    call = f"explorables.definitions['{name}'].compute({arguments})"
    return json.loads(engine.eval(f"JSON.stringify({call})"))


@pytest.mark.parametrize("name", NAMES)
def test_computes_the_numbers_of_minirl(name):
    module = explorables.load(name)
    assert len(module.CASES) >= 3
    for values in module.CASES:
        numbers = computed(name, values)
        expected = module.numbers(values)
        assert expected
        for key, value in expected.items():
            np.testing.assert_allclose(numbers[key], value, rtol=1e-9, atol=1e-12, err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_is_short_and_needs_nothing_from_elsewhere(name):
    text = (DOCS / "explorables" / f"{name}.js").read_text()
    assert len(text.splitlines()) < 150
    assert "http" not in text
    assert "import " not in text
