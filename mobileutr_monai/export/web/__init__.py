"""A page that segments images in a browser, on the user's device: its files, and the folder that holds them."""
