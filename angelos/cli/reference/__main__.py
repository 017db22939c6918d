"""`python -m angelos.cli.reference FOLDER [--check]`."""

import sys

from angelos.cli.reference import main

sys.exit(main())
