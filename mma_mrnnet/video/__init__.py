"""Video: a file, URL, bytes or data-set entry into upright frames with times; frames into a file."""
