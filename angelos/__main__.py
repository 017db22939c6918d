"""`python -m angelos`: the same as `angelos`."""

from angelos.cli import main

main()
