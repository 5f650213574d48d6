"""The files written for a case."""
