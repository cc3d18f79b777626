"""One file a corpus, each one function: folder -> data set."""
