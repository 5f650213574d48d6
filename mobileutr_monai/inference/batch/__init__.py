"""A run over a folder: the runner, its worker processes and what they do with a case."""
