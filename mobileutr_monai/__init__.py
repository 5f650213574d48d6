"""MobileUtr, MONAI-native: the network, and what its MONAI bundles are made of. Research only."""
