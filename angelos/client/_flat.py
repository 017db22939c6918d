"""The flat methods of before, for callers that are not converted yet; they all go."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec

from angelos.client.tasks import Restarted
from angelos.core import api
from angelos.core.messages import TaskResult
from angelos.core.runs import Output


class Flat:
    """One method for each operation."""

    tasks: Any
    repos: Any
    proposals: Any
    nodes: Any
    agents: Any
    people: Any
    audit: Any

    async def submit(self, task: api.SubmitTask) -> api.TaskView:
        return await (await self.tasks.start(**_fields(task))).view()

    async def task(self, task: str, wait: float = 0) -> api.TaskView:
        return await self.tasks[task].view(wait)

    async def cancel(self, task: str, reason: str = "") -> api.TaskView:
        return await self.tasks[task].cancel(reason)

    async def run(self, code: str = "", **options: Any) -> TaskResult:
        return await self.tasks.run(code, **options)

    async def stream(
        self, task: api.SubmitTask, *, on_accept: Callable[[api.TaskView], None] | None = None
    ) -> AsyncGenerator[Output | Restarted | TaskResult, None]:
        async with await self.tasks.start(**_fields(task)) as handle:
            if on_accept is not None:
                on_accept(await handle.view())
            async with aclosing(handle.output()) as pieces:
                async for piece in pieces:
                    yield piece
            yield await handle.result()

    async def create_repo(self, name: str, files: Any, message: str = "import") -> api.RepoView:
        return await (await self.repos.create(name, files, message)).view()

    async def repo(self, name: str) -> api.RepoView:
        return await self.repos[name].view()

    async def revision(self, repo: str, revision: str) -> api.RevisionView:
        return await self.repos[repo].revision(revision)

    async def read_file(self, repo: str, revision: str, path: str) -> bytes:
        return await self.repos[repo].read(path, revision)

    async def read_live(self, repo: str, path: str) -> bytes:
        return await self.repos[repo].read_live(path)

    async def bundle(self, repo: str, revision: str) -> Any:
        return await self.repos[repo].bundle(revision)

    async def diff(self, repo: str, before: str, after: str) -> Any:
        return await self.repos[repo].diff(before, after)

    async def log(self, repo: str, branch: Any = "main", limit: int = 50) -> Any:
        return await self.repos[repo].log(branch, limit)

    async def rollback(self, repo: str, to: str, reason: str = "") -> Any:
        return await self.repos[repo].rollback(to, reason)

    async def propose(self, repo: str, base: str, edits: Any, message: str) -> api.ProposalView:
        proposal = await self.repos[repo].propose(edits, base=base, message=message)
        return await proposal.view()

    async def proposal(self, proposal: str, wait: float = 0) -> api.ProposalView:
        return await self.proposals[proposal].view(wait)

    async def approve(self, proposal: str, digest: str, comment: str = "") -> api.ProposalView:
        return await self.proposals[proposal].approve(digest, comment)

    async def reject(self, proposal: str, digest: str, comment: str = "") -> api.ProposalView:
        return await self.proposals[proposal].reject(digest, comment)

    async def enrol_token(
        self, kind: str, name: str, node_role: Any = "execution", ttl_s: int = 600
    ) -> api.EnrolmentView:
        if kind == "node":
            return await self.nodes.add(name, node_role, ttl_s)
        return await self.agents.add(name, ttl_s)

    async def quarantine(self, principal: str, reason: str = "") -> None:
        kind, _, name = principal.partition("/")
        await (self.nodes if kind == "node" else self.agents).quarantine(name, reason)

    async def release(self, principal: str) -> None:
        kind, _, name = principal.partition("/")
        await (self.nodes if kind == "node" else self.agents).release(name)

    async def add_person(self, name: str, role: Any) -> api.PersonView:
        return await self.people.add(name, role)

    async def remove_person(self, name: str) -> None:
        await self.people.remove(name)

    async def audit_entries(self, after: int = -1, limit: int = 100) -> Any:
        return await self.audit.entries(after, limit)

    async def checkpoint(self) -> api.CheckpointView:
        return await self.audit.checkpoint()

    def audit_export(self) -> AsyncGenerator[bytes, None]:
        return self.audit.export()


def _fields(task: api.SubmitTask) -> dict[str, Any]:
    fields = msgspec.structs.asdict(task)
    del fields["language"]
    return fields
