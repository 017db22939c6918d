"""`python -m angelos.cli`: the same as `angelos`."""

from angelos.cli import main

main()
