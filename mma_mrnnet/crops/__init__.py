"""Crops: a folder of videos as stored, aligned face crops."""
