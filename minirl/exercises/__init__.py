"""Checks of the exercises that end each notebook, one file per notebook.

Each function takes a reader's answer and returns a `Verdict`: right; not yet, with the reason where
a known mistake explains it; or not answered yet. Solutions are in ``notebooks/solutions``.
"""

from minirl.exercises.verdict import Verdict

__all__ = ["Verdict"]
