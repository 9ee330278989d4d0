"""Generates pages before Sphinx reads the sources; `docs/conf.py` calls these modules."""
