"""What each role may do in Jupyter itself, asked of the policy like any route.

    resource                                   read              write            execute
    -----------------------------------------  ----------------  ---------------  -----------
    contents (files, sessions of documents)    documents:read    documents:edit   -
    room (what is typed into a document)       documents:read    documents:edit   -
    timeline (a copy to go back in)            documents:edit    documents:edit   -
    kernels, sessions, terminals               documents:read    jupyter:use      jupyter:use
    kernelspecs                                documents:read    jupyter:use      -
    nbconvert (a conversion is execution: it   documents:read    jupyter:use      jupyter:use
      runs LaTeX, pandoc or a browser on
      what agents may have written, unboxed)
    events                                     events:read       jupyter:use      events:read
    api, config                                status:read       jupyter:use      -
    csp (browsers' reports)                    status:read       status:read      -
    lsp (language servers)                     jupyter:use       jupyter:use      jupyter:use
    server (shut down)                         people:manage     people:manage    -
    anything else                              refused           refused          refused

A managed document is written through its room only. A write past the room (save, upload, rename,
delete, restore a checkpoint, fork) is refused for everybody, the owner included: it would
overwrite what others have typed. `main` has no rooms and no files here, so nobody can write it.

Where the data directory lies below Jupyter's root, only admins reach anything in it but the
workspace: it holds the owner's token and the keys.

JupyterLab's own handlers (settings, workspaces, build, and the extension manager, which installs
packages) never ask an authorizer. A write that does not ask needs jupyter:use; the identity
provider enforces that, since every handler asks it (`refuse_unasked`).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from jupyter_server.auth.authorizer import Authorizer
from jupyter_server.nbconvert.handlers import NbconvertFileHandler, NbconvertPostHandler
from jupyter_server.services.contents.handlers import (
    ContentsHandler,
    ModifyCheckpointsHandler,
)
from jupyter_server_ydoc.handlers import DocForkHandler, DocSessionHandler, TimelineHandler
from jupyter_server_ydoc.utils import decode_file_path
from tornado.web import HTTPError

from angelos.core.errors import AngelError
from angelos.core.permissions import Permission
from angelos.core.policy.access import require
from jupyter_ext.auth.identity import principal_of
from jupyter_ext.kernels.handlers import refuse_foreign
from jupyter_ext.kernels.managed import ManagedContents
from jupyter_ext.kernels.service import caller

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jupyter_server.auth.identity import User
    from jupyter_server.base.handlers import JupyterHandler

    from jupyter_ext.binding import Binding

_P = Permission
_PURE_FORMATS = frozenset({"html", "markdown", "notebook", "python", "slides"})
"""What nbconvert makes by itself; others run LaTeX, pandoc, a browser or any exporter by name."""
_CONFIGURATION = re.compile(
    r"(?:jupyter|ipython)\w*_config\.(?:py|json)|(?:site|user)customize(?:\.py)?|.*\.pth"
    r"|jupyter\w*_config\.d",
    re.IGNORECASE,
)
_USE = {"read": _P.documents_read, "write": _P.jupyter_use, "execute": _P.jupyter_use}
TABLE: dict[str, dict[str, Permission]] = {
    "contents": {"read": _P.documents_read, "write": _P.documents_edit},
    "room": {"read": _P.documents_read, "write": _P.documents_edit},
    "kernels": _USE,
    "sessions": _USE,
    "terminals": _USE,
    "kernelspecs": {"read": _P.documents_read, "write": _P.jupyter_use},
    "nbconvert": _USE,
    "events": {"read": _P.events_read, "write": _P.jupyter_use, "execute": _P.events_read},
    "api": {"read": _P.status_read, "write": _P.jupyter_use},
    "config": {"read": _P.status_read, "write": _P.jupyter_use},
    "csp": {"read": _P.status_read, "write": _P.status_read},
    "lsp": {"read": _P.jupyter_use, "write": _P.jupyter_use, "execute": _P.jupyter_use},
    "server": {"read": _P.people_manage, "write": _P.people_manage},
}
_HINT = (
    "Type into it in JupyterLab, or propose a change (`angelos propose`); "
    "a write past its room would overwrite what others have typed."
)


def permission_for(action: str, resource: str) -> Permission | None:
    """Return the permission that an action on a resource of Jupyter's needs; None: nobody may.

    >>> permission_for("execute", "kernels")
    <Permission.jupyter_use: 'jupyter:use'>
    """
    return TABLE.get(resource, {}).get(action)


class AngelAuthorizer(Authorizer):
    """Authorizes by role."""

    async def is_authorized(  # type: ignore[override]
        self, handler: JupyterHandler, user: User, action: str, resource: str
    ) -> bool:
        """Return whether `user` may do `action` on `resource`.

        Raises:
            HTTPError: the request would write past a managed document's room.
        """
        if isinstance(handler, DocSessionHandler):
            action = "read"  # this PUT only looks up the id of a document's room
        elif isinstance(handler, TimelineHandler):
            resource, action = "room", "write"  # this GET makes a copy, which the server keeps
        elif isinstance(handler, NbconvertFileHandler):
            action = "execute"
        if isinstance(handler, (NbconvertFileHandler, NbconvertPostHandler)):
            refuse_children(handler)
        permission, principal = permission_for(action, resource), principal_of(user)
        caller.set(principal)
        if permission is None:
            return False
        try:
            require(principal, permission)
        except AngelError as error:
            setattr(handler, "refused_by", error)  # noqa: B010 - so that the fact names the rule
            return False
        if not principal.may(Permission.people_manage):
            refuse_private_paths(handler, resource)
        if resource in {"kernels", "sessions"}:
            await refuse_foreign(handler, principal, action)
        if action == "write" and resource == "contents":
            refuse_configuration(handler)
            await _refuse_bypass(handler)
        return True


def refuse_private_paths(handler: JupyterHandler, resource: str) -> None:
    """Raise 404 for a request that names a path in the data directory, wherever it names it."""
    for path in (asked_path(handler), *named_paths(handler, resource)):
        refuse_private(handler, path)


def refuse_private(handler: JupyterHandler, path: str) -> None:
    """Raise 404 for a path in the data directory but not in the workspace: keys lie there."""
    binding: Binding | None = handler.settings.get("angelos_binding")
    if binding is not None and binding.is_private(path):
        raise HTTPError(404, f"There is no file {path}.")


def refuse_children(handler: JupyterHandler) -> None:
    """Raise 403 for a conversion that would start programs: they would run in no box."""
    kind = handler.path_kwargs.get("format")
    name = kind.decode(errors="replace") if isinstance(kind, bytes) else kind
    if name not in _PURE_FORMATS:
        formats = ", ".join(sorted(_PURE_FORMATS))
        raise HTTPError(403, f"{name} would start programs outside of a box; there are {formats}.")


def refuse_configuration(handler: JupyterHandler) -> None:
    """Raise 403 for a write to a hidden file, or one that Jupyter, IPython or Python reads itself.

    Jupyter and IPython read their configuration, which is code, from the folder they start in.
    """
    for path in written_paths(handler):
        parts = path.strip("/").split("/")
        if any(part.startswith(".") for part in parts):
            raise HTTPError(403, f"{path} is hidden, and is not written here.")
        if any(_CONFIGURATION.fullmatch(part) for part in parts):
            raise HTTPError(403, f"{path} configures programs, and is not written here.")


async def _refuse_bypass(handler: JupyterHandler) -> None:
    binding: Binding | None = handler.settings.get("angelos_binding")
    if binding is None:
        return
    for path in written_paths(handler):
        if path == asked_path(handler) and edits_dev(handler, binding):
            continue
        try:
            managed = await _managed(binding, path)
        except AngelError as error:
            raise HTTPError(error.status, str(error)) from error
        if managed:
            raise HTTPError(409, f"{path} is managed by AngelOS. {_HINT}")


def edits_dev(handler: JupyterHandler, binding: Binding) -> bool:
    """Return whether a request renames or deletes in a repository, as `ManagedContents` does it."""
    if handler.request.method not in {"PATCH", "DELETE"} or not isinstance(
        handler, ContentsHandler
    ):
        return False
    inside = binding.workspace_path(asked_path(handler)) or ""
    return "/" in inside and isinstance(handler.contents_manager, ManagedContents)


async def _managed(binding: Binding, path: str) -> bool:
    """Return whether a write to `path` touches managed documents."""
    if binding.holds_workspace(path):
        return True
    relative = binding.workspace_path(path)
    if relative is None:
        return False
    if await binding.locate(path):
        return True
    folder = Path(binding.workspace) / relative
    if not folder.is_dir():
        return False
    for below in _files(folder):
        if await binding.locate(f"{path.rstrip('/')}/{below}"):
            return True
    return False


def _files(folder: Path) -> Iterator[str]:
    """Yield every file below a folder, relative to it; links are not followed."""
    for parent, _, names in os.walk(folder):
        for name in names:
            yield (Path(parent) / name).relative_to(folder).as_posix()


def asked_path(handler: JupyterHandler) -> str:
    """Return the path in a request's address."""
    path = handler.path_kwargs.get("path") or next(iter(handler.path_args), "")
    return path if isinstance(path, str) else path.decode(errors="replace")


def named_paths(handler: JupyterHandler, resource: str) -> list[str]:
    """Return the paths that the body of a request to the Contents API names."""
    if resource != "contents" or handler.request.method not in {"POST", "PATCH", "PUT"}:
        return []
    body = handler.get_json_body()
    fields = [body.get(key) for key in ("copy_from", "path")] if isinstance(body, dict) else []
    return [path for path in fields if isinstance(path, str)]


def written_paths(handler: JupyterHandler) -> list[str]:
    """Return the paths of the Contents API that a request would write past a room."""
    path = asked_path(handler)
    method = handler.request.method
    if isinstance(handler, DocForkHandler):
        manager = handler.settings["file_id_manager"]
        source = manager.get_path(decode_file_path(path)[2]) if path.count(":") > 1 else None
        return [source] if source else []
    if isinstance(handler, ModifyCheckpointsHandler):
        return [path] if method == "POST" else []
    if not isinstance(handler, ContentsHandler):
        return []
    if method == "PATCH":
        body = handler.get_json_body()
        target = body.get("path", "") if isinstance(body, dict) else None
        if not isinstance(target, str):
            raise HTTPError(400, 'The body of a rename is {"path": "the/new/path"}.')
        return [path, target] if target else [path]
    # POST only creates a file, under a name that is free.
    return [path] if method in {"PUT", "DELETE"} else []
