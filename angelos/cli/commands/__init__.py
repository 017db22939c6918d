"""One module a command; see the table in `angelos.cli`."""
