"""Garbage collection in a process that serves many connections.

spare_started()        # once all is imported and built
"""

from __future__ import annotations

import gc

_started: list[bool] = []


def spare_started() -> None:
    """Leave what there is now out of later collections; only the first call has an effect.

    A full collection stops the event loop while it looks at every object, 80 ms for the modules of
    a server alone. After this it looks only at what was made later: sessions, requests, facts.
    """
    if not _started:
        _started.append(True)
        gc.collect()
        gc.freeze()
