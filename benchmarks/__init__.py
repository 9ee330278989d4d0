"""Experiments behind the documentation: `python -m benchmarks.control.choices`, for example.

`control/` trains on Gymnasium's environments, `rlhf/` on the token task, `speed/` measures time and
memory; `mutation.py` measures the tests. `study.py` keeps runs in `results/` and makes tables.
"""
