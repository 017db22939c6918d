"""The running system as the demo's steps see it: `angelos up` in a process, agents in theirs."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from angelos.adapters.host.datadir import DataDir
from angelos.client import Angelos, Repo
from angelos.core.api import SETTLED, ProposalView
from angelos.core.errors import AngelError, from_problem
from angelos.core.facts import Fact, Kind
from angelos.core.ids import START, Revision
from angelos.core.repository import Edit
from angelos.demo import orphan, study

AGENTS = ("ada", "bob", "mallory")
_MOVES = tuple(k for k in Kind if k.startswith(("proposal.", "rollback.", "branch.")))
LINE_LIMIT = 32 * 1024 * 1024


class StepFailed(Exception):
    """A step did not do what its title says."""


def expect(condition: object, claim: str) -> None:
    """Raise `StepFailed` with the claim unless the condition holds."""
    if not condition:
        raise StepFailed(claim)


class Agent:
    """An agent's process, driven by JSON lines (see `agent.py`)."""

    def __init__(self, name: str, repo: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.repo = repo
        self.process = process
        self.cut: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue(16)

    async def read(self) -> None:
        """Sort the process's lines into answers and events until it ends."""
        assert self.process.stdout is not None  # noqa: S101 - made with a pipe
        async for line in self.process.stdout:
            message = json.loads(line)
            if message.get("event") == "cut":
                if not self.cut.done():
                    self.cut.set_result(message["problem"])
            else:
                await self._answers.put(message)
        await self._answers.put({"ended": True})

    async def ready(self) -> None:
        """Wait until the process has started."""
        message = await asyncio.wait_for(self._answers.get(), 30)
        expect(message.get("ready"), f"agent {self.name} did not start: {message}")

    async def ask(self, op: str, **request: Any) -> dict[str, Any]:
        """Send one request and return its answer; raise what the API refused it with.

        Raises `StepFailed` when the agent's process has ended.
        """
        assert self.process.stdin is not None  # noqa: S101 - made with a pipe
        line = json.dumps({"op": op, **msgspec.to_builtins(request)}) + "\n"
        try:
            self.process.stdin.write(line.encode())
            await self.process.stdin.drain()
        except ConnectionError:
            raise StepFailed(f"the process of agent {self.name} has ended") from None
        message = await asyncio.wait_for(self._answers.get(), 60)
        expect("ended" not in message, f"the process of agent {self.name} has ended")
        if message.get("ok"):
            return message["answer"]
        raise from_problem(message["problem"])

    async def propose(self, base: str, edits: Sequence[Edit], message: str) -> ProposalView:
        """Propose edits of the study repository."""
        got = await self.ask(
            "propose", repo=self.repo, base=base, edits=list(edits), message=message
        )
        return msgspec.convert(got, type=ProposalView)

    async def refusal(self, op: str, **request: Any) -> AngelError:
        """Send a request that has to be refused and return the refusal."""
        try:
            got = await self.ask(op, **request)
        except AngelError as error:
            return error
        raise StepFailed(f"{self.name} was allowed to {op}: {got}")


@dataclass
class World:
    """What the steps share."""

    data_dir: Path
    angelos: Angelos
    repo: str = study.REPO
    agents: dict[str, Agent] = field(default_factory=dict)
    revisions: dict[str, Revision] = field(default_factory=dict)
    """Names that steps give to revisions for later steps."""
    files: dict[str, str] = field(default_factory=study.study_files)

    @property
    def token(self) -> str:
        """The owner's token, as `angelos up` wrote it to `system.json`."""
        return DataDir(self.data_dir).system().token

    @property
    def repository(self) -> Repo:
        """The study repository."""
        return self.angelos.repos[self.repo]

    async def text(self, path: str, revision: str = "main") -> str:
        """Return the text of a file at a revision of the study repository."""
        return (await self.repository.read(path, revision)).decode()

    async def main(self) -> Revision:
        """Return the present revision of `main`."""
        return (await self.repository.view()).main

    async def settled(
        self, proposal: str, states: Collection[str] = SETTLED, within: float = 90
    ) -> ProposalView:
        """Wait until a proposal is in one of `states` (default: nothing more happens by itself).

        Raises `TimeoutError` after `within` seconds.
        """
        offset = (await self.angelos.status()).journal
        facts = self.angelos.events(after=offset, kinds=_MOVES)
        async with asyncio.timeout(within), aclosing(facts):
            while True:
                view = await self.angelos.proposals[proposal].view()
                if view.state in states:
                    return view
                await anext(facts)
        raise AssertionError  # the loop ends by return or time-out

    async def fact(self, kind: str, subject: str = "", within: float = 30, **data: Any) -> Fact:
        """Wait for the first fact of a kind that has this subject and these data."""
        facts = self.angelos.events(after=START, kinds=(kind,), subject=subject)
        async with asyncio.timeout(within), aclosing(facts):
            async for fact in facts:
                fields = {**msgspec.structs.asdict(fact), **fact.plain()}
                if all(fields.get(key) == value for key, value in data.items()):
                    return fact
        raise StepFailed(f"there was no fact {kind} {subject} {data}")

    async def node_has(self, node: str, revision: Revision) -> Fact:
        """Wait until a node reports this revision as checked out and healthy."""
        return await self.fact("checkout.healthy", f"node/{node}", revision=revision)

    async def cli(self, *args: str, stdin: str = "") -> Any:
        """Run `angelos ARGS --json` as a user would, and return what it printed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "angelos",
            *args,
            "--json",
            "--data-dir",
            str(self.data_dir),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_LIMIT,
        )
        out, err = await process.communicate(stdin.encode())
        lines = out.decode().strip().splitlines()
        answer = json.loads(lines[-1]) if lines else {}
        return {"exit": process.returncode, "answer": answer, "stderr": err.decode()}


@asynccontextmanager
async def running(process: asyncio.subprocess.Process, within: float) -> AsyncIterator[None]:
    """End a process on leaving: terminate it, and kill it if it still runs after `within` s."""
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), within)
            except TimeoutError:
                process.kill()
                await process.wait()


async def start_up(data_dir: Path, stack: AsyncExitStack, *, temporary: bool = False) -> World:
    """Start `angelos up` on `data_dir` and return the world once it is ready.

    It ends with this process, however that ends, and then removes a `temporary` directory.
    """
    process = await asyncio.create_subprocess_exec(
        *orphan.argv(str(data_dir), temporary=temporary),
        stdout=asyncio.subprocess.PIPE,
        # Ctrl-C is for us, and we end it: to a second signal it answers by killing all.
        process_group=0,
    )
    await stack.enter_async_context(running(process, 30))
    assert process.stdout is not None  # noqa: S101 - made with a pipe
    async with asyncio.timeout(120):
        async for line in process.stdout:
            if json.loads(line).get("event") == "ready":
                break
        else:
            await process.wait()  # before it is asked to end, which would take its exit code
            raise StepFailed("`angelos up` ended before it was ready; see its messages above")
    angelos = await stack.enter_async_context(Angelos.connect(data_dir))
    return World(data_dir, angelos)


async def start_agent(world: World, name: str, stack: AsyncExitStack) -> Agent:
    """Enrol an agent with a single-use token and start its process."""
    folder = world.data_dir / "agents" / name
    token = (await world.angelos.agents.add(name)).token
    joined = await world.cli("agent", "join", "-", str(folder), stdin=token)
    expect(joined["exit"] == 0, f"agent {name} did not join: {joined}")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "angelos.demo.agent",
        str(folder),
        process_group=0,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_LIMIT,
    )
    agent = Agent(name, world.repo, process)
    reader = asyncio.create_task(agent.read())
    stack.push_async_callback(asyncio.wait, {reader})  # it ends with the process
    await stack.enter_async_context(running(process, 10))
    await agent.ready()
    world.agents[name] = agent
    return agent
