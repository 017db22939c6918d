"""Requests and answers: who asks, what cannot be sent, and problems back as errors."""

from __future__ import annotations

import asyncio
import socket

import msgspec
import pytest

from angelos.client import Angelos
from angelos.core import errors
from angelos.testing import eventually
from tests.unit.client.fake_server import angelos, world

__all__ = ["angelos", "world"]


async def test_a_request_carries_the_token(world, angelos):
    world.answers["GET /people"] = (200, b'{"people": []}')
    assert await angelos.people.list() == ()
    assert world.requests == [("GET /people", "", "token secret", b"")]


async def test_an_answer_of_a_later_version_is_understood(world, angelos):
    world.answers["GET /audit/checkpoint"] = (
        200,
        b'{"size": 3, "root": "r", "note": "n", "origin": "o", "keys": [], "colour": "blue"}',
    )
    assert (await angelos.audit.checkpoint()).size == 3


@pytest.mark.parametrize("cls", sorted(errors.BY_CODE.values(), key=lambda c: c.code))
async def test_a_problem_is_raised_as_the_error_it_was(world, angelos, cls):
    sent = cls("it broke", hint="mend it", conflicts=[1])
    world.answers["GET /status"] = (cls.status, msgspec.json.encode(sent.problem()))
    with pytest.raises(errors.AngelError) as caught:
        await angelos.status()
    assert type(caught.value) is cls
    assert (caught.value.detail, caught.value.hint) == ("it broke", "mend it")
    assert caught.value.extra == {"conflicts": [1]}


@pytest.mark.parametrize(
    ("status", "body", "cls"),
    [
        (403, b'{"message": "Forbidden"}', errors.Forbidden),
        (404, b"<html>", errors.NotFound),
        (503, b"", errors.Unavailable),
        (418, b"[]", errors.AngelError),
        (302, b"", errors.AngelError),
        (503, b"[" * 100_000, errors.Unavailable),
    ],
)
async def test_an_answer_that_is_no_problem_document_goes_by_its_status(
    world, angelos, status, body, cls
):
    world.answers["GET /nodes"] = (status, body)
    with pytest.raises(errors.AngelError) as caught:
        await angelos.nodes.list()
    assert type(caught.value) is cls


@pytest.mark.parametrize(
    "raw", [b'{"version": 3}', b'{"x":' + b"[" * 100_000], ids=["type", "deep"]
)
async def test_an_answer_of_another_shape_is_an_error_of_ours(world, angelos, raw):
    world.answers["GET /status"] = (200, raw)
    with pytest.raises(errors.AngelError, match="something else"):
        await angelos.status()


async def test_ids_cannot_leave_their_segment(world, angelos):
    world.answers["GET /tasks/..%2F..%2Fpeople%3Fx"] = (200, world.task())
    await angelos.tasks["../../people?x"].view()
    assert world.requests[0][:2] == ("GET /tasks/..%2F..%2Fpeople%3Fx", "")


async def test_nobody_there_is_unavailable():
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        async with Angelos(f"http://127.0.0.1:{taken.getsockname()[1]}") as client:
            with pytest.raises(errors.Unavailable):
                await client.status()


async def test_a_closed_client_says_so(world):
    client = Angelos(world.url)
    with pytest.raises(errors.Unavailable, match="not open"):
        await client.status()


async def test_a_client_is_open_between_open_and_close(world):
    world.answers["GET /people"] = (200, b'{"people": []}')
    client = await Angelos(world.url).open()
    assert await client.people.list() == ()
    await client.close()
    with pytest.raises(errors.Unavailable, match="not open"):
        await client.people.list()


@pytest.mark.parametrize("url", ["", "localhost:1", "ftp://x", "file:///etc/passwd"])
def test_only_http_addresses_are_taken(url):
    with pytest.raises(errors.InvalidInput):
        Angelos(url)


async def test_who_no_longer_waits_for_an_answer_hangs_up(world, angelos, caplog):
    world.answer_now = asyncio.Event()
    world.answers["GET /status"] = (200, b"{}")
    asking = asyncio.ensure_future(angelos.status())
    await eventually(lambda: world.requests, "the request")
    asking.cancel()
    await asyncio.wait({asking})
    await asyncio.wait_for(world.hung_up.wait(), 20)
    world.answer_now.set()
    assert not caplog.records


@pytest.mark.parametrize("token", ["a\nb", "a b", "\udcff", "ü"])
def test_a_token_that_is_no_header_is_refused_here(token):
    with pytest.raises(errors.InvalidInput, match="token"):
        Angelos("http://127.0.0.1:1", token=token)


async def test_what_cannot_be_sent_is_refused_here():
    async with Angelos("http://127.0.0.1:1") as angelos:
        for request in (
            angelos.tasks["\udcff"].view(),
            angelos.proposals.list(repo="\udcff"),
            angelos.tasks.start("\udcff"),
        ):
            with pytest.raises(errors.InvalidInput, match="not Unicode"):
                await request
        with pytest.raises(errors.TooLarge):
            await angelos.tasks.start("#" * 17_000_000)
