"""What every part uses, from the standard library alone: atomic files, limits, choices of the command, words."""
