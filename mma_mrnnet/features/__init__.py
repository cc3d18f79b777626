"""Features: rows of numbers a clip, computed once and memory-mapped."""
