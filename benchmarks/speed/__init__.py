"""Time and memory, as ratios to named bounds and to other libraries."""
