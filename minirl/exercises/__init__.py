"""Checks of the exercises that end each notebook, one file per notebook.

Each function takes a reader's answer and returns a `Verdict`: right, wrong or not answered yet. If
a known mistake explains a wrong answer, the verdict contains a hint. Solutions are in
``notebooks/solutions``.
"""

from minirl.exercises.verdict import Verdict

__all__ = ["Verdict"]
