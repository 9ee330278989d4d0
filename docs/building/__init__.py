"""What is written before Sphinx reads the pages; `docs/conf.py` calls it."""
