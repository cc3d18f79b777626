"""Both networks, and exactly what a Hub repository gets: one flat folder that imports only its siblings."""
