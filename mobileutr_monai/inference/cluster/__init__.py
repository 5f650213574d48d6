"""Batch inference on the nodes of a Ray cluster."""
