"""How fast is light? Michelson's first series of measurements, 1879."""
