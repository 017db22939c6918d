"""SHAMSHEL, the runtime for Python: the guard before a run, and the program that runs."""
