"""The box in which a program runs, and the status that its end deserves."""
