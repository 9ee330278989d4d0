"""Plumbing that every layer may use: argument checks, files, history, metrics, the machine."""
