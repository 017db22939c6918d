"""Kernels of the server: in a box each, of the person who started them."""
