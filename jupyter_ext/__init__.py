"""AngelOS inside Jupyter Server: control API, events, roles, and rooms stored by AngelGit.

    /angelos/api/...            every route of the planes, behind Jupyter's sign-in
    /angelos/api/openapi.json   their description
    /angelos/api/events         the journal as a WebSocket, resumable
    /api/collaboration/room/    rooms of managed documents: edits are stored, then shown

Jupyter finds the extension by `_jupyter_server_extension_points`; it is enabled by
`etc/jupyter/jupyter_server_config.d/angelos.json` or `--ServerApp.jpserver_extensions`.
"""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from jupyter_ext.extension import AngelExtension

    return [{"module": "jupyter_ext", "app": AngelExtension}]
