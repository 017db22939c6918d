"""The box in which a program runs, and the word for how it ended."""
