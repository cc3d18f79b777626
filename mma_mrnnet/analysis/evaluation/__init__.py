"""How good an extractor is on labelled face crops: scores with intervals, what moves them, and what fails."""
