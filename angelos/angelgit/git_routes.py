"""The routes of git: a repository as a bundle, and who signs its commits.

GET /repos/study/git-bundle
GET /repos/study/allowed-signers
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from angelos.angelgit.git.service import MAX_BUNDLE_BYTES
from angelos.core.errors import InvalidInput
from angelos.core.history import GitImported
from angelos.core.permissions import Permission
from angelos.core.routes import Call, Nothing, Route

if TYPE_CHECKING:
    from angelos.angelgit.service import AngelGit


def git_routes(service: AngelGit) -> list[Route]:
    """Return the routes of a running AngelGit's git side."""
    api = _GitApi(service)
    read = Permission.revisions_read
    return [
        Route(
            "GET",
            "/repos/{repo}/git-bundle",
            read,
            api.bundle,
            response=bytes,
            query=("notes",),
            media_type="application/octet-stream",
            summary="The whole repository as a git bundle; notes=ai adds who wrote each line",
        ),
        Route(
            "GET",
            "/repos/{repo}/allowed-signers",
            read,
            api.allowed_signers,
            response=bytes,
            media_type="text/plain",
            summary="The file by which git verifies this repository's commits",
        ),
        Route(
            "POST",
            "/git-imports",
            Permission.repositories_create,
            api.import_history,
            request=bytes,
            response=GitImported,
            status=201,
            query=("name",),
            max_body=MAX_BUNDLE_BYTES,
            summary="Import a git bundle, with its history, as a new repository",
        ),
    ]


class _GitApi:
    def __init__(self, service: AngelGit) -> None:
        self._service = service

    async def bundle(self, call: Call[Nothing]) -> bytes:
        notes = call.query.get("notes", "")
        if notes not in {"", "ai"}:
            raise InvalidInput("`notes` is `ai` or left out.")
        return await self._service.git.bundle(call.params["repo"], notes=bool(notes))

    async def import_history(self, call: Call[bytes]) -> GitImported:
        name = call.query.get("name", "")
        imported = await self._service.import_history(name, call.body, call.principal.id)
        return GitImported(
            name=name,
            dev=await self._service.head(name, "dev"),
            main=await self._service.head(name, "main"),
            head=imported.head,
            references=len(imported.refs),
            renamed=tuple((_text(old), _text(new)) for old, new in imported.renamed.items()),
        )

    async def allowed_signers(self, call: Call[Nothing]) -> bytes:
        await self._service.head(call.params["repo"], "main")
        return self._service.git.allowed_signers.encode()


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
