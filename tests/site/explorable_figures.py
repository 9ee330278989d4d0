"""What the tests of the explorable figures share."""

import json
import sys
from pathlib import Path

import numpy as np
from py_mini_racer import MiniRacer

DOCS = Path(__file__).parents[2] / "docs"
sys.path.append(str(DOCS))

from building import explorables  # noqa: E402

NAMES = explorables.names()


def with_scripts(name: str, chinese: bool = False) -> MiniRacer:
    """V8 with the frame, the data and the definition of an explorable."""
    engine = MiniRacer()
    for script in ("pen", "text", "explorable"):
        engine.eval((explorables.SOURCE / f"{script}.js").read_text())
    if chinese:
        engine.eval(explorables.words_script(name))
    engine.eval(explorables.data_script(name))
    engine.eval((explorables.SOURCE / f"{name}.js").read_text())
    return engine


def result(engine: MiniRacer, expression: str):
    """The value of an expression in JavaScript."""
    return json.loads(engine.eval(f"JSON.stringify({expression})"))


def assert_same_numbers(numbers, expected):
    """Compare what JavaScript computed with minirl's numbers; texts must be equal."""
    assert expected
    for key, value in expected.items():
        if np.asarray(value).dtype.kind == "U":
            assert numbers[key] == value, key
        else:
            np.testing.assert_allclose(numbers[key], value, rtol=1e-9, atol=1e-12, err_msg=key)
