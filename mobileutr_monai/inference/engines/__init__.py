"""What computes the network: the table of engines, the choice of one, and the cache of exported models."""
