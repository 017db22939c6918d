"""This machine: the data directory, child processes, embedded stores, the clock."""
