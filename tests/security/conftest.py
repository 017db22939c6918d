"""Lets the tests here and the programs that they start share the attacks (`sandbox_*.py`)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1] / "integration" / "jupyter"))
