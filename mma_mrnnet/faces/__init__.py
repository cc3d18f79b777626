"""Faces: frames into people, followed and aligned; crops into affect."""
