"""Tables: cells of text files, and features with one row per frame."""
