"""`python -m angelos.node`."""

from __future__ import annotations

import sys

from angelos.node.main import main

if __name__ == "__main__":
    sys.exit(main())
