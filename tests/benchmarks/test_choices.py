"""The table in docs/choices.md is the one that the stored runs give."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_holds_the_table_of_the_stored_runs(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location("choices", ROOT / "benchmarks" / "choices.py")
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "choices", script)  # where dataclasses look for annotations
    spec.loader.exec_module(script)
    assert script.table() in (ROOT / "docs" / "choices.md").read_text()
