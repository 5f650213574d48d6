"""What is read from disk: images, masks, lists of cases."""
