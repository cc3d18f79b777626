"""Made-up data: simulated reactions and drawn faces."""
