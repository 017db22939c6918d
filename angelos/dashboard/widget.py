"""The widget: views that the feed publishes become traits, clicks become reviews."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets

from angelos.client import Angelos
from angelos.dashboard.service import DashboardFeed

log = logging.getLogger(__name__)
_STATIC = Path(__file__).parent / "static"
_MAX_COMMENT = 2_000


class Dashboard(anywidget.AnyWidget):
    """Nodes, tasks and approvals of the system that `ANGELOS_DATA_DIR` names.

    It has a thread of its own: a running cell does not block it, and it does not block a cell.
    It ends with `close()` or with the kernel. In JupyterLab the page follows the system by itself,
    and goes on after a restart of the server, which ends the kernel.

    Args:
        connect: How to reach the system; by default the one that runs on this machine.
    """

    _esm: ClassVar[Path] = _STATIC / "dashboard.js"
    _css: ClassVar[Path] = _STATIC / "dashboard.css"

    own = traitlets.Bool().tag(sync=True)
    """Whether a page of this system's Jupyter server may follow it by itself."""
    system = traitlets.Dict().tag(sync=True)
    nodes = traitlets.List().tag(sync=True)
    approvals = traitlets.List().tag(sync=True)
    recent = traitlets.List().tag(sync=True)
    tasks = traitlets.List().tag(sync=True)
    beat = traitlets.Int().tag(sync=True)
    """Counts up while the kernel lives."""

    def __init__(
        self, connect: Callable[[], AbstractAsyncContextManager[Angelos]] | None = None
    ) -> None:
        super().__init__(own=connect is None)
        self._feed = DashboardFeed(connect or Angelos.connect, self._publish)
        self.on_msg(self._on_message)
        self._feed.start()

    def close(self) -> None:
        """Stop following and remove the widget."""
        feed = getattr(self, "_feed", None)  # __del__ closes, even when __init__ failed
        if feed is not None:
            feed.close()
        super().close()

    def _publish(self, view: dict[str, Any]) -> None:
        """Set the traits; only changed ones are sent to the browser."""
        for name, value in view.items():
            self.set_trait(name, value)

    def _on_message(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """Handle a click; the server checks role and digest, this only the form."""
        if not isinstance(content, dict):
            return
        word, proposal, digest, comment = (
            content.get(key, "") for key in ("word", "proposal", "digest", "comment")
        )
        if word not in {"approve", "reject"} or not all(
            isinstance(text, str) for text in (proposal, digest, comment)
        ):
            log.warning("the dashboard sent a malformed message")
            return
        self._feed.review(proposal, digest, word, comment[:_MAX_COMMENT])
