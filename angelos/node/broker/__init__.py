"""The broker: the one way from a box to the network, by rules that its grant names."""
