"""Video: any input to upright frames with times, and frames to a file."""
