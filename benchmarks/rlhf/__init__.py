"""Alignment on the token task, always measured against the exact optimum."""
