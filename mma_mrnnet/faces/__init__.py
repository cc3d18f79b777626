"""Faces: people tracked and aligned from frames, and affect from crops."""
