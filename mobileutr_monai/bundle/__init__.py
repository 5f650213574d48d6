"""Running a bundle, making a new one, and converting the authors' checkpoints."""
