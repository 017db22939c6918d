"""The widget: what the feed publishes becomes traits, clicks become reviews."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets

from angelos.client import Angelos
from angelos.dashboard.service import Feed

log = logging.getLogger(__name__)
_STATIC = Path(__file__).parent / "static"
_MAX_COMMENT = 2_000


class Dashboard(anywidget.AnyWidget):
    """Nodes, tasks and approvals of the system that `ANGELOS_DATA_DIR` names.

    It follows from a thread of its own: a running cell does not hold it up, and it does not hold
    up a cell. `close()` ends it; so does the kernel's end.
    """

    _esm: ClassVar[Path] = _STATIC / "dashboard.js"
    _css: ClassVar[Path] = _STATIC / "dashboard.css"

    system = traitlets.Dict().tag(sync=True)
    nodes = traitlets.List().tag(sync=True)
    approvals = traitlets.List().tag(sync=True)
    recent = traitlets.List().tag(sync=True)
    tasks = traitlets.List().tag(sync=True)

    def __init__(
        self, connect: Callable[[], AbstractAsyncContextManager[Angelos]] | None = None
    ) -> None:
        """Take how to reach the system; by default the one that runs here."""
        super().__init__()
        self._feed = Feed(connect or Angelos.connect, self._publish)
        self.on_msg(self._on_message)
        self._feed.start()

    def close(self) -> None:
        """Stop following and take the widget away."""
        feed = getattr(self, "_feed", None)  # ipywidgets closes from __del__, however far we came
        if feed is not None:
            feed.close()
        super().close()

    def _publish(self, view: dict[str, Any]) -> None:
        """Set the traits; only what differs is sent to the browser."""
        for name, value in view.items():
            self.set_trait(name, value)

    def _on_message(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """Take a click; the server checks role and digest, here only the form."""
        if not isinstance(content, dict):
            return
        word, proposal, digest, comment = (
            content.get(key, "") for key in ("word", "proposal", "digest", "comment")
        )
        if word not in {"approve", "reject"} or not all(
            isinstance(text, str) for text in (proposal, digest, comment)
        ):
            log.warning("the dashboard sent a message that is none of its own")
            return
        self._feed.review(proposal, digest, word, comment[:_MAX_COMMENT])
