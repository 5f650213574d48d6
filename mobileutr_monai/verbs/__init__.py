"""Verbs of the ``mobileutr`` command: their options, and what they start."""
