"""Jupyter's pages do not carry the server's token.

Jupyter writes it into every page of whoever is signed in (JupyterLab's configuration, and the
`data-jupyter-api-token` of other pages), and JupyterLab then sends it with each request. On a
server with several people it would make everybody the owner. Without it pages use the login
cookie of the person, as they do under JupyterHub.
"""

from __future__ import annotations

from typing import Any

from jupyter_server.base.handlers import AuthenticatedHandler, JupyterHandler


class PageConfig(dict[str, Any]):
    """JupyterLab's page configuration; `token` stays empty, whoever sets it."""

    def __setitem__(self, key: str, value: Any) -> None:
        """Set anything but a token."""
        super().__setitem__(key, "" if key == "token" else value)


def without_token(handler: AuthenticatedHandler) -> None:
    """Have a handler render its pages without the server's token."""
    if not isinstance(handler, JupyterHandler):
        return

    def render(name: str, **namespace: Any) -> str:
        known = {**namespace, **handler.template_namespace, "token": ""}
        return handler.get_template(name).render(**known)

    handler.render_template = render
