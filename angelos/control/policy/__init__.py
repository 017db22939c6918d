"""What policy allows: Cedar files, and the engine that asks them."""
