"""Video: whatever is handed in into upright frames with times, and frames into a file."""
