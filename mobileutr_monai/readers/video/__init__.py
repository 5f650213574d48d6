"""Video files: their frames, one at a time."""
