"""The paper's comparisons: variants of one model, each over several seeds, and what their differences amount to."""
