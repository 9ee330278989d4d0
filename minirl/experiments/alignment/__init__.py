"""The whole alignment chain, run, judged against the exact optimum, and drawn."""
