"""`python -m tools.reference FOLDER [--check]`."""

import sys

from tools.reference import main

sys.exit(main())
