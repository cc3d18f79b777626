"""Tables: cells of text files, and the features of a table with one row a frame."""
