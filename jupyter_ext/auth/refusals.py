"""What Jupyter refuses, whichever handler does it, as refusals of the system.

Tornado calls the application's log function at the end of every request: so that sees what the
authorizer, the XSRF check, the origin check and the handlers themselves refuse, sockets included.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
from jupyter_server.auth.identity import User
from tornado.web import RequestHandler

from angelos.adapters.net.http import refusal_of
from jupyter_ext.auth.identity import principal_of

if TYPE_CHECKING:
    from jupyter_ext.binding import Binding

log = logging.getLogger(__name__)
Log = Callable[[RequestHandler], None]


def recording(write: Log, binding: Binding) -> Log:
    """Return a log function that also records what was refused.

    Args:
        write: Jupyter's own.
        binding: Where the running system is.
    """

    def record(handler: RequestHandler) -> None:
        write(handler)
        server = binding.server
        if server is None:
            return
        try:
            refusal = refusal_of(handler, "jupyter")
            if refusal is None:
                return
            # Set by the identity provider; asking the handler could sign somebody in now.
            user = getattr(handler, "_current_user", None)
            if isinstance(user, User):
                refusal = msgspec.structs.replace(refusal, principal=principal_of(user).id)
            server.refusals.record(refusal)
        except Exception:  # the answer is sent already
            log.exception("A refusal was not recorded")

    return record
