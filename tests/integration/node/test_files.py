"""Files into a real box and out of it, and rich output."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from angelos.core.errors import Unavailable
from angelos.core.ids import PrincipalId, TaskId
from angelos.core.messages import Limits, RunTask, Status, Tier
from angelos.core.task_files import InputFile
from angelos.node.broker.models import NetworkConfig
from angelos.node.broker.service import Brokers
from angelos.node.checkouts.store import Checkouts
from angelos.node.commands.output import OutputBuffer
from angelos.node.commands.runner import Runner
from angelos.node.config import SandboxConfig
from angelos.node.environments.store import Environments
from angelos.node.files.inputs import Inputs
from angelos.node.runtimes.builder import Builder
from angelos.node.runtimes.program import Programs
from angelos.node.sandbox.sandbox import BubblewrapSandbox
from angelos.testing import MemoryContents, need

TASK = RunTask(task=TaskId("task-1"), guard=False, limits=Limits(wall_s=30))


class Server:
    """Keeps files as the server does."""

    def __init__(self) -> None:
        self.contents = MemoryContents()
        self.full = False
        self.fetched = 0

    async def fetch(self, task: TaskId, digest: str) -> bytes:
        self.fetched += 1
        return await self.contents.get(digest)

    async def keep(self, task: TaskId, content: bytes) -> None:
        if self.full:
            raise Unavailable("no room")
        await self.contents.put(content)


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[tuple[Runner, Server, Path]]:
    server = Server()
    async with BubblewrapSandbox(SandboxConfig(ready_boxes=0)) as sandbox:
        need(sandbox.tier in {Tier.full, Tier.reduced}, f"no boxes here: {sandbox.reasons}")
        directory = tmp_path / "node"
        directory.mkdir(mode=0o700)
        checkouts = Checkouts(directory, None, None)  # type: ignore[arg-type]
        inputs = Inputs(directory, server)
        programs = Programs(Builder(directory), tmp_path)
        environments = Environments(directory, Brokers(directory, NetworkConfig()), None)
        runner = Runner("exec1", sandbox, checkouts, inputs, server, programs, environments)
        yield runner, server, directory


async def run(runner: Runner, task: RunTask):
    async def nothing(*_: object) -> None:
        return None

    return await runner.run(task, nothing, nothing, OutputBuffer(), PrincipalId("person/ada"))


async def test_files_go_in_and_come_out_and_nothing_else_does(system) -> None:
    runner, server, directory = system
    module = await server.contents.put(b"def double(x):\n    return 2 * x\n")
    data = await server.contents.put(b"1\n2\n")
    inputs = (
        InputFile(path="lib/tools.py", sha256=module),
        InputFile(path="data.csv", sha256=data, executable=True),
    )
    code = """
import os, socket
from lib.tools import double
numbers = [double(int(line)) for line in open("data.csv")]
print(numbers, open("/in/data.csv").read() == open("data.csv").read())
for path in ("data.csv", "/in/data.csv", "/in/new", "lib/tools.py"):
    try:
        open(path, "a").write("x")
        print("WRITABLE", path)
    except OSError:
        pass
os.makedirs("plots/deep")
open("plots/a.txt", "w").write("made")
open("plots/deep/b.bin", "wb").write(bytes(3))
os.symlink("/etc/passwd", "plots/link.txt")
os.symlink("/etc", "plots/etc")
os.mkfifo("plots/pipe.txt")
socket.socket(socket.AF_UNIX).bind("plots/socket.txt")
open("left.txt", "w").write("not asked for")
"""
    for _ in range(2):
        task = msgspec.structs.replace(
            TASK, code=code, inputs=inputs, outputs=("plots/**", "data.csv")
        )
        result = await run(runner, task)
        assert (result.status, result.stdout) == ("ok", "[2, 4] True\n"), result
        taken = {file.path: (file.size, file.media_type) for file in result.files}
        assert taken == {
            "plots/a.txt": (4, "text/plain"),
            "plots/deep/b.bin": (3, "application/octet-stream"),
        }
        assert await server.contents.get(result.files[0].sha256) == b"made"
        assert {left.path: left.reason for left in result.left_out} == {
            "plots/etc": "link",
            "plots/link.txt": "link",
            "plots/pipe.txt": "special",
            "plots/socket.txt": "special",
        }
    assert server.fetched == len(inputs)  # the second time they were here
    assert not [*(directory / "contents").glob(".*")]
    (directory / "contents" / data).write_bytes(b"3\n4\n")  # somebody has touched it
    result = await run(runner, task)
    assert (result.stdout, server.fetched) == ("[2, 4] True\n", len(inputs) + 1)


async def test_what_cannot_be_kept_or_fetched_is_said(system) -> None:
    runner, server, _ = system
    server.full = True
    task = msgspec.structs.replace(TASK, code="open('a', 'w').write('x')", outputs=("*",))
    result = await run(runner, task)
    assert result.status == "ok"
    assert [(left.path, left.reason) for left in result.left_out] == [("a", "not-stored")]
    task = msgspec.structs.replace(TASK, code="1", inputs=(InputFile(path="a", sha256="0" * 64),))
    result = await run(runner, task)
    assert (result.status, result.evidence["code"]) == (Status.denied, "not-found")


async def test_rich_output_comes_as_mime_bundles(system) -> None:
    runner, _, _ = system
    code = """
import json, os
class Table:
    def __repr__(self): return "a table"
    def _repr_html_(self): return "<b>table</b>"
class Picture:
    def __repr__(self): return "a picture"
    def _repr_png_(self): return bytes(3)
class Whole:
    def _repr_mimebundle_(self, **_): return {"text/plain": "w", "application/json": {"a": 1}}
display(Table(), Picture())
display(Whole())
open(".angelos-display/9.json", "w").write("[garbage")
os.symlink("/etc/passwd", ".angelos-display/8.json")
open(".angelos-display/7.json", "w").write(json.dumps({"data": {"text/plain": "x" * 999_999}}))
"""
    result = await run(runner, msgspec.structs.replace(TASK, code=code))
    assert result.stdout == "a table\na picture\nw\n", result
    assert [bundle.data for bundle in result.displays] == [
        {"text/plain": "a table", "text/html": "<b>table</b>"},
        {"text/plain": "a picture", "image/png": base64.b64encode(bytes(3)).decode()},
        {"text/plain": "w", "application/json": '{"a": 1}'},
    ]
    assert {left.reason for left in result.left_out} == {"link", "too-large"}
