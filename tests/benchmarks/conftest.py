"""Scripts of benchmarks/ as modules."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """load(name) -> benchmarks/name.py, imported as its siblings import it."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module
