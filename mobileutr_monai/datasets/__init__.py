"""Images with masks: the layout of a folder, the coding of its masks, data lists, splits and checks."""
