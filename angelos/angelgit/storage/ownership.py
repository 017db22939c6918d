"""The leases by which one server at a time owns a repository's documents.

A lease is granted in PostgreSQL with an epoch, which is then raised in the log: whoever had the
repository before appends nothing from there on, and every transaction of theirs fails its check.
Only then does the new owner read. So what an owner has acknowledged its successor reads, and what
it acknowledges nobody overwrites.

    await leases.acquire("study")                  # or raises Conflict, with the holder
    async with stores.change("study") as store:    # checks it, and holds newer owners off
        ...
"""

from __future__ import annotations

import logging

from angelos.adapters.stores.leases import PostgresLeases
from angelos.adapters.stores.postgres import Connection, Database
from angelos.angelgit.storage.log import DocumentLog
from angelos.core.errors import AngelError, Fenced
from angelos.core.fencing import FencingToken

log = logging.getLogger(__name__)
LEASE_S = 15.0
"""A repository is free so long after its owner was last heard of."""


class RepositoryLeases:
    """The repositories that one server owns."""

    def __init__(self, database: Database, document_log: DocumentLog, holder: str) -> None:
        self.name = holder
        self._leases = PostgresLeases(database)
        self._log = document_log
        self._tokens: dict[str, FencingToken] = {}

    def owns(self, repo: str) -> bool:
        """Return whether this server was given a repository and has not met a newer owner."""
        return repo in self._tokens

    async def holder(self, repo: str) -> str:
        """Return which server has a repository at present, empty if none has."""
        return await self._leases.holder(_resource(repo))

    async def acquire(self, repo: str) -> None:
        """Take a repository that is free, or was an earlier life's of this server.

        Raises:
            Conflict: another server has it; `extra` has `holder` and `free_in_s`.
            Fenced: another server has taken it meanwhile.
        """
        token = await self._leases.acquire(_resource(repo), self.name, LEASE_S)
        await self._log.raise_epoch(repo, token.epoch)
        self._tokens[repo] = token

    async def keep(self) -> None:
        """Keep all repositories for another while; what has a newer owner `renew` finds out."""
        for repo, token in list(self._tokens.items()):
            try:
                await self._leases.renew(token, LEASE_S)
            except Fenced:
                self._log.fenced.set()
            except AngelError as error:
                log.warning("the lease of %s was not renewed: %s", repo, error)

    async def renew(self, repo: str) -> None:
        """Keep a repository; raise `Fenced` if it has a newer owner or the log has lost ours."""
        await self._leases.renew(self._token(repo), LEASE_S)
        if not await self._log.is_owned(repo):
            await self.release(repo)
            raise Fenced(f"The log of {repo} has another epoch.")

    async def release(self, repo: str) -> None:
        """Give a repository back; write nothing to it any more."""
        self._log.leave(repo)
        token = self._tokens.pop(repo, None)
        if token is None:
            return
        try:
            await self._leases.release(token)
        except AngelError as error:
            log.warning("%s is free only after %g s: %s", repo, LEASE_S, error)

    async def release_all(self) -> None:
        """Give back everything."""
        for repo in list(self._tokens):
            await self.release(repo)

    async def check(self, repo: str, connection: Connection) -> None:
        """Hold newer owners off until a transaction ends; raise `Fenced` if there is one."""
        try:
            await self._leases.check(self._token(repo), connection)
        except Fenced:
            self._log.fenced.set()
            raise

    def _token(self, repo: str) -> FencingToken:
        token = self._tokens.get(repo)
        if token is None:
            raise Fenced(f"{repo} is another server's; nothing was written.")
        return token


def _resource(repo: str) -> str:
    return f"repo/{repo}"
