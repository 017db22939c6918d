"""Which cases a task asks for, and whose word its end is.

>>> CasePlan(runner=CaseRunner.unittest, arguments=("discover", "-s", "tests")).runner.value
'unittest'
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from angelos.core.ids import Revision


class CaseRunner(StrEnum):
    """What kind of cases there are."""

    unittest = "unittest"
    pytest = "pytest"
    doctest = "doctest"
    notebook = "notebook"


class CasePlan(msgspec.Struct, frozen=True, kw_only=True):
    """Cases that a runner asks for, in a checkout of the task's revision."""

    runner: CaseRunner
    arguments: tuple[str, ...] = ()
    """What stands behind `python -m unittest` (`pytest`, `doctest`), or the notebook's path."""
    fresh: tuple[str, ...] = ()
    """Ids of a notebook's cells whose stored outputs are of another source."""
    judges: Revision | None = None
    """A revision whose own tests judge, in place of the checkout's."""
    taken: tuple[str, ...] = ()
    """Paths that are taken from that revision."""
    removed: tuple[str, ...] = ()
    """Paths that it does not have, so that they are left out."""
