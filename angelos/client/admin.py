"""Who takes part, and what happened: nodes, agents, people and the audit log.

For example:

    token = (await angelos.agents.add("ada")).token     # single use: `angelos agent join`
    await angelos.agents.quarantine("ada", "It asked for the policy.")
    person = await angelos.people.add("vera", Role.viewer)
    async for piece in angelos.audit.export():
        file.write(piece)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from typing import Literal

from angelos.client.download import download
from angelos.client.transport import Transport, segments
from angelos.core import api
from angelos.core.permissions import Permission, Role

_TOKEN_S = 600


class NodeCollection:
    """The nodes that run tasks and hold checkouts: `angelos.nodes`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self) -> tuple[api.NodeView, ...]:
        """Return all enrolled nodes.

        Raises:
            Forbidden: The caller may not read nodes.
        """
        return (await self._transport.call("GET", "/nodes", api.NodeList)).nodes

    async def add(
        self, name: str, role: Literal["execution", "labs"] = "execution", ttl_s: int = _TOKEN_S
    ) -> api.EnrolmentView:
        """Return a single-use token by which a node gets its certificate.

        Args:
            name: The node's name.
            role: `execution` runs tasks; `labs` takes each new `main` first, as a canary.
            ttl_s: Seconds after which an unused token is void, at most a day.

        Raises:
            Unauthenticated: It is quarantined.
            Forbidden: The caller may not enrol.
        """
        body = api.CreateEnrolment(kind="node", name=name, node_role=role, ttl_s=ttl_s)
        return await self._transport.call("POST", "/enrolments", api.EnrolmentView, body=body)

    async def quarantine(self, name: str, reason: str = "") -> None:
        """Refuse a node from now on: its certificate, connections and grants are void.

        Args:
            name: The node's name.
            reason: Why; kept in the audit log.

        Raises:
            Forbidden: The caller may not quarantine.
        """
        await _quarantine(self._transport, "node", name, reason)

    async def release(self, name: str, *, new_key: bool = False) -> api.Released:
        """Ask to end a node's quarantine; the second person who asks ends it.

        Args:
            name: The node's name.
            new_key: Its certificate stays void, and it has to join again.

        Raises:
            Forbidden: The caller may not release.
            Conflict: It is not quarantined.
            NotFound: There is no such node.
        """
        return await _release(self._transport, "node", name, new_key=new_key)

    async def quarantine_view(self, name: str) -> api.QuarantineView:
        """Return how a node stands, and its changes, each merged one tried to undo.

        Args:
            name: The node's name.

        Raises:
            Forbidden: The caller may not see that.
            NotFound: There is no such node.
        """
        path = "/principals" + segments("node", name, "quarantine")
        return await self._transport.call("GET", path, api.QuarantineView)


class AgentCollection:
    """The agents that run tasks and propose changes: `angelos.agents`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def add(self, name: str, ttl_s: int = _TOKEN_S) -> api.EnrolmentView:
        """Return a single-use token by which an agent gets its certificate.

        Args:
            name: The agent's name.
            ttl_s: Seconds after which an unused token is void, at most a day.

        Raises:
            Unauthenticated: It is quarantined.
            Forbidden: The caller may not enrol.
        """
        body = api.CreateEnrolment(kind="agent", name=name, ttl_s=ttl_s)
        return await self._transport.call("POST", "/enrolments", api.EnrolmentView, body=body)

    async def quarantine(self, name: str, reason: str = "") -> None:
        """Refuse an agent from now on: its certificate, connections and grants are void.

        Args:
            name: The agent's name.
            reason: Why; kept in the audit log.

        Raises:
            Forbidden: The caller may not quarantine.
        """
        await _quarantine(self._transport, "agent", name, reason)

    async def release(self, name: str, *, new_key: bool = False) -> api.Released:
        """Ask to end an agent's quarantine; the second person who asks ends it.

        Args:
            name: The agent's name.
            new_key: Its certificate stays void, and it has to join again.

        Raises:
            Forbidden: The caller may not release.
            Conflict: It is not quarantined.
            NotFound: There is no such agent.
        """
        return await _release(self._transport, "agent", name, new_key=new_key)

    async def quarantine_view(self, name: str) -> api.QuarantineView:
        """Return how an agent stands, and its changes, each merged one tried to undo.

        Args:
            name: The agent's name.

        Raises:
            Forbidden: The caller may not see that.
            NotFound: There is no such agent.
        """
        path = "/principals" + segments("agent", name, "quarantine")
        return await self._transport.call("GET", path, api.QuarantineView)

    async def pause(self, name: str = "", reason: str = "") -> None:
        """Stop what runs for an agent where it is, within a second; nothing of it starts.

        Args:
            name: The agent's name; empty for every agent.
            reason: Why; kept in the audit log.

        Raises:
            Forbidden: The caller may not pause.
        """
        await _switch(self._transport, name, "pause", reason)

    async def resume(self, name: str = "", reason: str = "") -> None:
        """Let an agent go on; what it has used of its budget is forgotten.

        Args:
            name: The agent's name; empty for every agent that is not paused by itself.
            reason: Why; kept in the audit log.

        Raises:
            Forbidden: The caller may not resume.
        """
        await _switch(self._transport, name, "resume", reason)


class PersonCollection:
    """The people who may sign in: `angelos.people`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self) -> tuple[api.PersonView, ...]:
        """Return all people, without their tokens.

        Raises:
            Forbidden: The caller may not manage people.
        """
        return (await self._transport.call("GET", "/people", api.PersonList)).people

    async def add(self, name: str, role: Role) -> api.PersonView:
        """Add a person.

        Args:
            name: The person's name.
            role: What they may do.

        Returns:
            The person with their token, which is shown only now.

        Raises:
            Conflict: Somebody has that name already.
            Forbidden: The caller may not manage people.
        """
        body = api.CreatePerson(name=name, role=role)
        return await self._transport.call("POST", "/people", api.PersonView, body=body)

    async def change(
        self, name: str, role: Role | None = None, *, new_token: bool = False
    ) -> api.PersonView:
        """Give a person another role or token; fewer rights or a new token sign them out.

        Args:
            name: The person's name.
            role: What they may do from now on.
            new_token: Whether their token is replaced; the new one is shown only now.

        Raises:
            NotFound: There is no such person.
            Conflict: It is the last admin's role.
            Forbidden: The caller may not manage people.
        """
        body = api.ChangePerson(role=role, new_token=new_token)
        path = "/people" + segments(name)
        return await self._transport.call("PUT", path, api.PersonView, body=body)

    async def remove(self, name: str) -> None:
        """Remove a person; their token is void from now on.

        Args:
            name: The person's name.

        Raises:
            NotFound: There is no such person.
            Forbidden: The caller may not manage people.
        """
        await self._transport.call("DELETE", "/people" + segments(name), api.Ok)


class PolicyRules:
    """What the policy says, and would say: `angelos.policy`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def explain(self, action: str, role: Role | None = None) -> api.Explanation:
        """Return the rules about an action.

        Args:
            action: A permission, such as `tasks:run`, or another action, such as `promote`.
            role: Whose permission it is about; by default the caller's.

        Raises:
            NotFound: The policy has no such action.
        """
        query: dict[str, object] = {"action": action}
        if role is not None:
            query["role"] = role.value
        return await self._transport.call("GET", "/policy/explain", api.Explanation, query=query)

    async def check(self, files: dict[str, str]) -> api.PolicyCheck:
        """Return whether files are a policy that can be relied on, and what they would change.

        Args:
            files: Texts by name; the policy's own stand for what is left out.

        Raises:
            InvalidInput: There are too many, or a name is none.
        """
        body = api.CheckPolicy(files=files)
        return await self._transport.call("POST", "/policy/check", api.PolicyCheck, body=body)


class TokenCollection:
    """The caller's own tokens beside the one that they sign in with: `angelos.tokens`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self) -> tuple[api.TokenView, ...]:
        """Return the tokens that are valid now, without their secrets."""
        return (await self._transport.call("GET", "/tokens", api.TokenList)).tokens

    async def create(
        self, label: str = "", scopes: Collection[Permission] = (), ttl_s: int = 86_400
    ) -> api.TokenView:
        """Make a token.

        Args:
            label: For people to recognise it by.
            scopes: What it may do; everything that the caller may if empty.
            ttl_s: Seconds until it expires.

        Returns:
            The token with its secret, which is shown only now.

        Raises:
            Forbidden: The caller may not do all of `scopes`.
            Busy: The caller has too many tokens.
        """
        body = api.CreateToken(label=label, scopes=tuple(scopes), ttl_s=ttl_s)
        return await self._transport.call("POST", "/tokens", api.TokenView, body=body)

    async def revoke(self, token: str) -> None:
        """Void a token, by its id; what it opened is closed.

        Args:
            token: The token's id.

        Raises:
            NotFound: The caller has no such token.
        """
        await self._transport.call("DELETE", "/tokens" + segments(token), api.Ok)


class AuditLog:
    """The Merkle log of everything that happened: `angelos.audit`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def entries(self, after: int = -1, limit: int = 100) -> tuple[api.AuditEntry, ...]:
        """Return entries in the order of the log.

        Args:
            after: Only entries after this index.
            limit: At most so many.

        Raises:
            Forbidden: The caller may not read the audit log.
        """
        query: dict[str, object] = {"after": after, "limit": limit}
        answer = await self._transport.call("GET", "/audit/entries", api.AuditEntries, query=query)
        return answer.entries

    async def checkpoint(self) -> api.CheckpointView:
        """Return the newest signed checkpoint.

        Raises:
            Forbidden: The caller may not read the audit log.
        """
        return await self._transport.call("GET", "/audit/checkpoint", api.CheckpointView)

    async def prove(self, index: int) -> api.AuditProofView:
        """Return the proof that an entry is in the signed log, which verifies offline.

        Args:
            index: Which entry, from 0.

        Raises:
            InvalidInput: There is no such entry.
            Forbidden: The caller may not read the audit log.
        """
        path = f"/audit/entries/{index}/proof"
        return await self._transport.call("GET", path, api.AuditProofView)

    def export(self) -> AsyncGenerator[bytes, None]:
        """Yield the whole log as JSON lines; `angelos audit verify` needs nothing else.

        Yields:
            Pieces of the export, as they come.

        Raises:
            Forbidden: The caller may not read the audit log.
            Unavailable: The answer broke off.
        """
        return download(self._transport, "/audit/export")


async def _switch(transport: Transport, name: str, word: str, reason: str) -> None:
    path = "/agents" + (segments(name, word) if name else segments(word))
    await transport.call("POST", path, api.Ok, body=api.Reason(reason=reason))


async def _quarantine(transport: Transport, kind: str, name: str, reason: str) -> None:
    path = "/principals" + segments(kind, name, "quarantine")
    await transport.call("POST", path, api.Ok, body=api.Reason(reason=reason))


async def _release(transport: Transport, kind: str, name: str, *, new_key: bool) -> api.Released:
    path = "/principals" + segments(kind, name, "release")
    return await transport.call("POST", path, api.Released, body=api.Release(new_key=new_key))
