"""Formulas of the site are typeset while it is built."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_a_formula_becomes_html_and_a_wrong_one_is_an_error(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    from building import maths

    assert "katex-html" in maths.typeset(r"\frac{a}{b}", True, "htmlAndMathml")
    assert "katex-html" not in maths.typeset(r"\frac{a}{b}", True, "mathml")
    with pytest.raises(maths.JSEvalException):
        maths.typeset(r"\frac{a", True, "mathml")
