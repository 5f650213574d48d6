"""Processes that read and write cases while the network runs."""
