"""Keeps the server's token out of Jupyter's pages.

Jupyter writes it into every page of a signed-in person (JupyterLab's configuration, and the
`data-jupyter-api-token` of other pages), and JupyterLab then sends it with each request. On a
server with several people that would make everybody the owner. Without it pages use the person's
login cookie, as they do under JupyterHub.
"""

from __future__ import annotations

from typing import Any

from jupyter_server.base.handlers import AuthenticatedHandler, JupyterHandler


class PageConfig(dict[str, Any]):
    """JupyterLab's page configuration, in which `token` always stays empty."""

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a value; a token becomes empty."""
        super().__setitem__(key, "" if key == "token" else value)


def without_token(handler: AuthenticatedHandler) -> None:
    """Make a handler render its pages without the server's token."""
    if not isinstance(handler, JupyterHandler):
        return

    def render(name: str, **namespace: Any) -> str:
        values = {**namespace, **handler.template_namespace, "token": ""}
        return handler.get_template(name).render(**values)

    handler.render_template = render
