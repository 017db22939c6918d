"""SHAMSHEL, the runtime for Python: the guard before a run, and what is run."""
