"""Analysis: what judges a model or a training."""
