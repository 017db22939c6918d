"""The dashboard: nodes, tasks with live output, and approvals, as a widget in a notebook.

    from angelos.dashboard import Dashboard
    Dashboard()

`state.py` turns facts into what is shown, `service.py` follows the system in a thread of its own,
`widget.py` and `static/` show it. It speaks to the system through `angelos.client` alone.
"""

from __future__ import annotations

from angelos.dashboard.widget import Dashboard

__all__ = ["Dashboard"]
