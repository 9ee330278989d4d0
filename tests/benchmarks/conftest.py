"""Scripts of benchmarks/ as modules."""

import importlib

import pytest


@pytest.fixture
def load():
    """load("control.choices") -> the module benchmarks.control.choices."""
    return lambda name: importlib.import_module(f"benchmarks.{name}")
