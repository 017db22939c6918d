"""The policy: Cedar files, and the engine that evaluates them."""
