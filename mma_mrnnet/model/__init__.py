"""Both networks. A Hub repository gets a flat copy of these files, without the package."""
