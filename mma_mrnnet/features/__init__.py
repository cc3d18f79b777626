"""Features: rows of numbers per clip, computed once and memory-mapped."""
