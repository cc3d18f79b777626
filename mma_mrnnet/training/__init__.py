"""Training: the arguments, the two stages, the one loop."""
