"""What a good colleague would say of a training run, read off its result files alone."""
