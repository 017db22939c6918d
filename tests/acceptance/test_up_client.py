"""The client against a running system: an agent by certificate, and a server that is killed."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from angelos.client import Angelos, Role
from angelos.core.errors import Forbidden, InvalidInput, NotFound, Unauthenticated
from angelos.core.ids import START
from angelos.core.repository import NewText
from angelos.core.task_files import InputFile
from tests.acceptance.up_process import cli, running


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """One running system for the module."""
    with running(tmp_path_factory.mktemp("system") / "data") as up:
        yield up


async def test_files_go_into_a_task_and_come_out_of_it(system, tmp_path):
    root, code = system.data.root, "import tools\nopen('plot.txt', 'w').write(tools.text)\n"
    code += "import os; os.symlink('/etc/passwd', 'link.txt'); print(open('a.txt').read())"
    (tmp_path / "tools.py").write_text("text = 'drawn'\n")
    (tmp_path / "main.py").write_text(code)
    async with Angelos.connect(root) as owner:
        repo = await owner.repos.create("inputs", {"deep/a.txt": "of a revision"})
        token = (await owner.people.add("vic", Role.viewer)).token
    done = cli(
        root, "run", "--in", str(tmp_path / "tools.py"), "--in", "inputs:deep/a.txt",
        "--out", "*.txt", "--out-dir", str(tmp_path / "out"), str(tmp_path / "main.py"),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "of a revision\n"), done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plot.txt"]
    assert (tmp_path / "out/plot.txt").read_text() == "drawn"
    assert "link.txt was not taken: link" in done.stderr
    async with Angelos.connect(root) as owner:
        (view,) = await owner.tasks.list(limit=1)
        task = owner.tasks[view.id]
        assert await task.read("plot.txt") == b"drawn"
        with pytest.raises(NotFound):
            await task.read("link.txt")
        for serve in (task.input("0" * 64), task.keep_output(b"x")):
            with pytest.raises(Forbidden):  # that is for its node
                await serve
        with pytest.raises(InvalidInput):
            await owner.tasks.start("1", inputs={"a": InputFile(path="a", sha256="0" * 64)})
        with pytest.raises(InvalidInput):
            await owner.tasks.start("1", outputs=("../*",))
        missing = InputFile(path="a", repo=repo.name, revision=view.result.files[0].sha256)
        with pytest.raises(NotFound):
            await owner.tasks.start("1", inputs={"a": missing})
    async with Angelos(system.data.system().url, token=token) as viewer:
        with pytest.raises(Forbidden):
            await viewer.tasks[view.id].read("plot.txt")
        seen = await viewer.tasks[view.id].view()
        assert (seen.result.files, seen.result.left_out) == ((), ())


async def _watch(angelos):
    async for _ in angelos.events(START, kinds=("principal.quarantined",)):
        continue


async def test_an_agent_works_within_its_role_until_it_is_quarantined(system, tmp_path):
    async with Angelos.connect(system.data.root) as owner:
        token = (await owner.agents.add("ada")).token
        notes = await owner.repos.create("notes", {"a.txt": "one\n"})
        async with await Angelos.join(token, tmp_path / "ada") as ada:
            assert (await ada.tasks.run("print(1)")).stdout == "1\n"
            edit = NewText(path="a.txt", text="two\n")
            proposal = await ada.repos[notes.name].propose([edit], base="main", message="why")
            view = await proposal.view()
            assert view.author == "agent/ada"
            with pytest.raises(Forbidden):
                await proposal.approve(view.digest)
            with pytest.raises(Forbidden):
                await ada.agents.add("eve")

            watching = asyncio.create_task(_watch(ada))
            await owner.agents.quarantine("ada", "a test")
            with pytest.raises((Unauthenticated, Forbidden)):
                await asyncio.wait_for(watching, 30)
            with pytest.raises(Unauthenticated):
                await ada.status()
        stands = await owner.agents.quarantine_view("ada")
        assert (stands.quarantined, stands.reason, stands.tasks_open) == (True, "a test", 0)
        assert {change.proposal for change in (*stands.merged, *stands.unmerged)} <= {view.id}
        assert not (await owner.agents.release("ada")).released
        with pytest.raises(NotFound):
            await owner.agents.quarantine("nobody")
        olga = (await owner.people.add("olga", Role.operator)).token
        async with Angelos.connect(system.data.root, token=olga) as second:
            assert (await second.agents.release("ada")).released
        async with Angelos.with_certificate(tmp_path / "ada") as ada:
            result = await ada.tasks.run("print(2)")  # new grants are not the revoked ones
            assert (result.status, result.stdout) == ("ok", "2\n"), result
            assert (await ada.whoami()).state == "probation"


async def test_live_and_committed_text_and_history(system):
    async with Angelos.connect(system.data.root) as owner:
        steps = '[pipeline]\nsteps = [{name = "text", run = ["python", "-m", "unittest"]}]\n'
        test = (
            "import unittest\n\nclass A(unittest.TestCase):\n    def test_a(self):\n        pass\n"
        )
        files = {"a.txt": "one\n", "sub/b.txt": "b\n", "angelos.toml": steps, "test_a.py": test}
        book = await owner.repos.create("book", files)
        first = (await book.view()).main
        proposal = await book.propose(
            [NewText(path="a.txt", text="two\n")], base=first, message="second"
        )
        async with asyncio.timeout(120):
            view = await proposal.settled()
        assert view.state == "promoted", view.reason
        assert await book.read("a.txt") == b"two\n"
        assert await book.read("a.txt", first) == b"one\n"
        assert await book.read_live("a.txt") == b"two\n"
        assert [c.path for c in await book.diff(first, "main")] == ["a.txt"]
        assert (await book.log()).commits[-1].id == first
        tree = (await book.revision(first)).tree
        back = await book.rollback(first)
        assert (await book.revision(back)).tree == tree
        assert (await book.bundle(back)).signed.revision == back
        assert "book" in {repo.name for repo in await owner.repos.list()}


@pytest.mark.slow
async def test_a_run_goes_on_while_the_server_is_killed_and_started_again(system):
    code = "import time\nfor n in range(8):\n    print(n, flush=True)\n    time.sleep(1)\n"
    started = asyncio.Event()
    seen: list[bytes] = []

    def output(piece):
        seen.append(piece.data)
        started.set()

    async with Angelos.connect(system.data.root) as owner:
        running_task = asyncio.create_task(owner.tasks.run(code, on_output=output))
        await asyncio.wait_for(started.wait(), 30)
        os.kill(system.pids()["server"][0], signal.SIGKILL)
        result = await asyncio.wait_for(running_task, 90)
    assert result.status == "ok", result
    expected = "".join(f"{n}\n" for n in range(8))
    assert result.stdout == expected
    assert b"".join(seen).decode() == expected
