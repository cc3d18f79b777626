"""Both networks, as every Hub repository gets them: one flat folder without the package."""
