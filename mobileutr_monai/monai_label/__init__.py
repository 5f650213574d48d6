"""The bundles in MONAI Label 0.8.5: annotate, correct, learn. Imported only where MONAI Label is installed."""
