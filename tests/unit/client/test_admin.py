"""Nodes, agents, people and the audit log: who may take part, and what happened."""

from __future__ import annotations

import pytest

from angelos.core.permissions import Role
from tests.unit.client.fake_server import angelos, world

__all__ = ["angelos", "world"]

TOKEN = b'{"token": "t", "expires_at": 1.0}'
OK = b'{"ok": true}'


async def test_nodes_and_agents_are_added_by_a_token(world, angelos):
    world.answers["POST /enrolments"] = (201, TOKEN)
    assert (await angelos.nodes.add("labs2", "labs", ttl_s=60)).token == "t"
    assert world.body() == {"kind": "node", "name": "labs2", "node_role": "labs", "ttl_s": 60}
    assert (await angelos.agents.add("ada")).token == "t"
    body = world.body()
    assert (body["kind"], body["name"], body["ttl_s"]) == ("agent", "ada", 600)


@pytest.mark.parametrize("kind", ["node", "agent"])
async def test_nodes_and_agents_are_quarantined_and_released(world, angelos, kind):
    world.answers[f"POST /principals/{kind}/a%2Fb/quarantine"] = (200, OK)
    asked = b'{"released": false, "needs": 1, "probation_until": null}'
    world.answers[f"POST /principals/{kind}/a%2Fb/release"] = (200, asked)
    collection = angelos.nodes if kind == "node" else angelos.agents
    await collection.quarantine("a/b", "why")
    assert world.body() == {"reason": "why"}
    assert (await collection.release("a/b", new_key=True)).needs == 1
    assert world.body() == {"new_key": True}
    assert world.sent()[-1] == f"POST /principals/{kind}/a%2Fb/release"


async def test_people_are_added_and_removed(world, angelos):
    world.answers["POST /people"] = (201, b'{"id": "person/vera", "role": "viewer", "token": "t"}')
    world.answers["DELETE /people/vera"] = (200, OK)
    person = await angelos.people.add("vera", Role.viewer)
    assert (person.id, person.token) == ("person/vera", "t")
    assert world.body() == {"name": "vera", "role": "viewer"}
    await angelos.people.remove("vera")
    assert world.sent()[-1] == "DELETE /people/vera"


async def test_the_audit_log_is_read_and_exported(world, angelos):
    entry = b'{"index": 4, "offset": "1-0", "body": "", "leaf": "ff"}'
    world.answers["GET /audit/entries"] = (200, b'{"entries": [' + entry + b"]}")
    world.answers["GET /audit/export"] = (200, b'{"line": 1}\n')
    (read,) = await angelos.audit.entries(after=3, limit=1)
    assert read.index == 4
    assert b"".join([piece async for piece in angelos.audit.export()]) == b'{"line": 1}\n'
    proof = b'{"index": 4, "size": 9, "proof": "c2sp.org/tlog-proof@v1"}'
    world.answers["GET /audit/entries/4/proof"] = (200, proof)
    assert (await angelos.audit.prove(4)).size == 9
    assert world.sent() == [
        "GET /audit/entries?after=3&limit=1", "GET /audit/export", "GET /audit/entries/4/proof",
    ]  # fmt: skip
