"""Exact answers to judge sampled ones by: finite decision processes, linear control, sentences.

Nothing here samples, and nothing here imports the rest of minirl: an oracle that shares code with
what it judges shares its bugs. Environments are read by their published attributes.
"""

from minirl.exact import entropy, groups, lqr, off_policy, pass_at_k, sequences, tabular
from minirl.exact.lqr import LQRProblem
from minirl.exact.tabular import FiniteMDP

__all__ = [
    "FiniteMDP",
    "LQRProblem",
    "entropy",
    "groups",
    "lqr",
    "off_policy",
    "pass_at_k",
    "sequences",
    "tabular",
]
