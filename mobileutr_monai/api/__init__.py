"""Segmenting from Python: a bundle as a function of an image."""
