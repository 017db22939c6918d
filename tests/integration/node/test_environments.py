"""Environments: packages of an index on loopback, installed once, in a box, and shared."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import os
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from angelos.core.errors import Tampered, Unavailable
from angelos.core.facts import NetworkRequested
from angelos.core.messages import Limits, Status, Tier
from angelos.core.network import NetworkVerdict
from angelos.core.runs import RunSpec
from angelos.node.broker.service import Brokers
from angelos.node.config import SandboxConfig
from angelos.node.environments.store import (
    EnvironmentFailure,
    Environments,
    _finish,
    package_index,
)
from angelos.node.sandbox.layout import PACKAGES
from angelos.node.sandbox.sandbox import BubblewrapSandbox
from angelos.testing import need
from tests.integration.node.boxes import run
from tests.integration.node.web import ADA, WebHost, config_for, page, web_host

Facts = list[tuple[NetworkRequested, NetworkVerdict]]


def wheel(name: str, source: str, version: str = "1.0") -> tuple[str, bytes]:
    """Return the file name and the content of a tiny package."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name}-tool = {name}:main\n",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in files.items())
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return f"{name}-{version}-py3-none-any.whl", content.getvalue()


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def offer(host: WebHost, name: str, source: str) -> None:
    """Serve a package by the index."""
    file, content = wheel(name, source)
    host.pages[f"/files/{file}"] = page(content)
    host.pages[f"/simple/{name}/"] = page(
        f'<a href="/files/{file}">{file}</a>'.encode(), b"Content-Type: text/html"
    )


@pytest.fixture
async def host() -> AsyncIterator[WebHost]:
    async with web_host() as served:
        offer(served, "greeting", "TEXT = 'hello'\ndef main(): print('from the tool')\n")
        yield served


@pytest.fixture
async def sandbox() -> AsyncIterator[BubblewrapSandbox]:
    async with BubblewrapSandbox(SandboxConfig(ready_boxes=0)) as boxes:
        need(boxes.tier in {Tier.full, Tier.reduced}, f"no boxes here: {boxes.reasons}")
        yield boxes


def environments(tmp_path: Path, host: WebHost, **options: int) -> tuple[Environments, Facts]:
    config = msgspec.structs.replace(
        config_for(tmp_path, host),
        index="https://index.test/simple/",
        index_files=("https://index.test/files/",),
    )
    brokers = Brokers(tmp_path, config)
    return Environments(tmp_path, brokers, package_index(config), **options), []


async def test_packages_are_installed_once_and_read_only(
    sandbox: BubblewrapSandbox, host: WebHost, tmp_path: Path
) -> None:
    store, facts = environments(tmp_path, host)

    async def report(fact: NetworkRequested, verdict: NetworkVerdict) -> None:
        facts.append((fact, verdict))

    async def look(code: str, argv: tuple[str, ...] = ()) -> str:
        async with store.use(["greeting==1.0"], sandbox, ADA, report) as site:
            assert isinstance(site, Path), site
            spec = RunSpec(
                argv=argv,
                code=code or None,
                limits=Limits(wall_s=60),
                read_only={PACKAGES: str(site)},
                packages=PACKAGES,
            )
            end, printed = await run(sandbox, spec)
            assert end.status is Status.ok, printed
            return printed

    program = (
        "import greeting, os\nprint(greeting.TEXT)\n"
        "try:\n    open(greeting.__file__, 'a')\nexcept OSError:\n    print('read-only')\n"
    )
    both = await asyncio.gather(look(program), look(program))  # one build for both
    assert both == ["hello\nread-only\n"] * 2
    assert await look("", ("python", "-c", "import greeting; print(greeting.TEXT)")) == "hello\n"
    assert await look("", ("greeting-tool",)) == "from the tool\n"
    assert [head.split(b" ")[1] for head in host.heads] == [
        b"/simple/greeting/",
        b"/files/greeting-1.0-py3-none-any.whl",
    ]
    assert {(fact.by, verdict) for fact, verdict in facts} == {(ADA, NetworkVerdict.allowed)}
    assert [path.name for path in (tmp_path / "environments").glob(".*")] == []


async def test_what_fails_says_why_and_leaves_nothing(
    sandbox: BubblewrapSandbox, host: WebHost, tmp_path: Path
) -> None:
    store, _ = environments(tmp_path, host)
    verdicts: list[str] = []

    async def report(fact: NetworkRequested, verdict: NetworkVerdict) -> None:
        verdicts.append(f"{fact.url} {verdict}")

    host.pages["/simple/away/"] = page(
        b'<a href="https://evil.test/away-1.0-py3-none-any.whl">away-1.0-py3-none-any.whl</a>',
        b"Content-Type: text/html",
    )
    async with store.use(["away"], sandbox, ADA, report) as failure:
        assert isinstance(failure, EnvironmentFailure)
        assert failure.end.status is Status.error
        assert b"evil.test" in failure.output
    assert any("evil.test" in row and row.endswith("no-rule") for row in verdicts)
    assert list((tmp_path / "environments").iterdir()) == []

    begun = asyncio.Event()

    def never(_: bytes, __: bytes) -> bytes:
        begun.set()
        return b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"

    host.pages["/simple/slow/"] = never

    async def build() -> None:
        async with store.use(["slow"], sandbox, ADA, report):
            raise AssertionError("it is never built")

    building = asyncio.create_task(build())
    async with asyncio.timeout(60):
        await begun.wait()
    building.cancel()
    await asyncio.gather(building, return_exceptions=True)
    assert building.cancelled()
    assert list((tmp_path / "environments").iterdir()) == []


async def test_an_environment_has_a_size(
    sandbox: BubblewrapSandbox, host: WebHost, tmp_path: Path
) -> None:
    async def report(*_: object) -> None: ...

    offer(host, "large", "#" * 5_000_000)
    store, _ = environments(tmp_path, host, most_bytes=1_000_000)
    async with store.use(["large"], sandbox, ADA, report) as failure:
        assert isinstance(failure, EnvironmentFailure)
    assert list((tmp_path / "environments").iterdir()) == []


def test_a_build_that_leaves_a_link_for_its_packages_is_refused(tmp_path: Path) -> None:
    """A bind follows the link, and would show a box what it leads to."""
    folder = tmp_path / ".new-1"
    folder.mkdir()
    (folder / "site").symlink_to(tmp_path)
    with pytest.raises(Tampered):
        _finish(folder, tmp_path / "key")
    assert not (tmp_path / "key").exists()
    (folder / "site").unlink()
    (folder / "site").mkdir()
    (folder / "size").symlink_to(tmp_path / "elsewhere")
    (folder / "tmp").symlink_to(tmp_path / "kept")
    (tmp_path / "kept").mkdir()
    _finish(folder, tmp_path / "key")
    assert (tmp_path / "kept").is_dir()
    assert not (tmp_path / "elsewhere").exists()


async def test_what_was_not_used_for_long_is_forgotten(tmp_path: Path, host: WebHost) -> None:
    store, _ = environments(tmp_path, host, keep_bytes=50_000)
    for number, name in enumerate(("old", "used", "new")):
        folder = tmp_path / "environments" / name / "site"
        folder.mkdir(parents=True)
        (folder / "link").symlink_to("/etc")
        (folder / "data").write_bytes(b"x" * 40_000)
        os.utime(folder.parent, (number, number))
    store._used["used"] += 1
    await store._forget()
    assert {path.name for path in (tmp_path / "environments").iterdir()} == {"used"}


async def test_a_node_without_an_index_says_so(
    sandbox: BubblewrapSandbox, host: WebHost, tmp_path: Path
) -> None:
    async def report(*_: object) -> None: ...

    store = Environments(tmp_path, Brokers(tmp_path, config_for(tmp_path, host)), None)
    with pytest.raises(Unavailable, match="no package index"):
        async with store.use(["one"], sandbox, ADA, report):
            raise AssertionError("there is none")
