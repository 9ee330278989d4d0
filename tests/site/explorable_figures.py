"""What the tests of the explorable figures share."""

import sys
from pathlib import Path

import numpy as np

DOCS = Path(__file__).parents[2] / "docs"
sys.path.append(str(DOCS))

from building import explorables  # noqa: E402

NAMES = explorables.names()


def assert_same_numbers(numbers, expected):
    """Compare what JavaScript computed with minirl's numbers; texts must be equal."""
    assert expected
    for key, value in expected.items():
        if np.asarray(value).dtype.kind == "U":
            assert numbers[key] == value, key
        else:
            np.testing.assert_allclose(numbers[key], value, rtol=1e-9, atol=1e-12, err_msg=key)
