"""Folders of NIfTI volumes with label maps: their layouts, their splits, and what is wrong with them."""
