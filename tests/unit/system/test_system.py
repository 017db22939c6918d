"""`angelos up` waits for its server, and knows when waiting is over."""

from __future__ import annotations

import asyncio

import pytest
from traitlets.config import Config

from angelos.core.errors import InvalidInput, ServerState, Unavailable
from angelos.system.system import System
from angelos.wiring.settings import load
from jupyter_ext.extension import jupyter_files


class Running:
    """A child process that goes on."""

    async def wait(self) -> int:
        await asyncio.Event().wait()
        return 0

    def tail(self) -> str:
        return "its last words"


class Answers:
    """A client of a server that answers with these errors, then is ready."""

    def __init__(self, *errors: Unavailable) -> None:
        self.errors = list(errors)

    async def status(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


async def test_a_directory_of_an_earlier_version_is_left_as_it_is(tmp_path):
    for name in ("jupyter", "postgres", "workspace"):
        (tmp_path / name).mkdir()
    (tmp_path / "lock").write_text("4711\n")
    (tmp_path / "postgres" / "PG_VERSION").write_text("16\n")
    before = {path: path.stat() for path in (tmp_path, *tmp_path.rglob("*"))}
    settings = load({}, data_dir=tmp_path)
    with pytest.raises(InvalidInput, match="nothing was changed"):
        async with System(settings, lambda *_, **__: None):
            pytest.fail("it started")
    assert jupyter_files(settings, Config()) == Config(), "Jupyter keeps nothing there either"
    after = {path: path.stat() for path in (tmp_path, *tmp_path.rglob("*"))}
    assert {path: (s.st_mode, s.st_mtime_ns, s.st_size) for path, s in before.items()} == {
        path: (s.st_mode, s.st_mtime_ns, s.st_size) for path, s in after.items()
    }


@pytest.fixture
def system(tmp_path):
    return System(load({}, data_dir=tmp_path), lambda *_, **__: None)


async def test_a_server_that_starts_is_waited_for(system):
    angelos = Answers(Unavailable("refused"), Unavailable(state=ServerState.starting.value))
    await system._server_ready(Running(), angelos)
    assert angelos.errors == []


async def test_a_server_that_says_that_it_starts_has_all_the_time_it_needs(system, monkeypatch):
    monkeypatch.setattr("angelos.system.system._READY_S", 2.0)  # of silence; it asks each 0.25 s
    starting = [Unavailable(state=ServerState.starting.value) for _ in range(16)]
    angelos = Answers(*starting)
    await system._server_ready(Running(), angelos)
    assert angelos.errors == []
    monkeypatch.setattr("angelos.system.system._READY_S", 0.2)
    silent = Answers(*(Unavailable("refused") for _ in range(1_000)))
    with pytest.raises(Unavailable, match="not ready after"):
        await system._server_ready(Running(), silent)


async def test_a_server_that_could_not_start_is_not_waited_for(system):
    # Whatever the sentence is: the state decides.
    failed = Unavailable("Kaputt.", state=ServerState.not_started.value)
    angelos = Answers(Unavailable("refused"), failed, Unavailable("never asked for"))
    with pytest.raises(Unavailable, match="Kaputt"):
        await system._server_ready(Running(), angelos)
    assert len(angelos.errors) == 1
