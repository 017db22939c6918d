"""What a task printed is read by whoever asked for it and by those who review."""

from __future__ import annotations

import pytest

from angelos.control.tasks.reading import OutputReaders
from angelos.core.api import SubmitTask
from angelos.core.errors import Forbidden
from angelos.core.facts import EMPTY, Kind
from angelos.core.ids import PrincipalId
from angelos.core.permissions import OWNER, Principal, Role
from angelos.core.policy.engine import Policy
from angelos.testing import make_fact
from tests.unit.control.fakes import ADA, PERSON, REVIEWER, VIEWER, World

BOB = Principal(id=PrincipalId("agent/bob"), role=Role.agent)
RESULT = {
    "status": "ok", "exit_code": 0, "stdout": "secret", "stderr": "secret", "duration_s": 1.0,
    "node": "exec1", "tier": "full", "evidence": {"said": "secret"},
}  # fmt: skip


@pytest.fixture
def world(clock):
    return World(clock)


async def finished(world, asker):
    task = await world.control.tasks.submit(asker, SubmitTask(code="print('secret')"))
    return await world.control.tasks.view(task.id, wait_s=10)


@pytest.mark.parametrize("asker", [ADA, PERSON])
async def test_views_lists_and_streams_show_it_to_its_asker_and_reviewers(world, asker):
    async with world.running() as control:
        await world.node()
        task = await finished(world, asker)
        readers = OutputReaders(control.projection, control.policy)
        facts = [
            make_fact(Kind.task_output, task.id, data={"stream": "stdout", "text": "secret"}),
            make_fact(Kind.task_finished, task.id, data=RESULT),
            make_fact(Kind.task_finished, task.id, data={"stdout": "secret"}),  # not of its form
        ]
        for reader in (ADA, BOB, PERSON, VIEWER, REVIEWER, OWNER):
            reads = reader.id == asker.id or reader in (REVIEWER, OWNER)
            view = await control.tasks.view(task.id, reader=reader)
            (listed,) = control.tasks.list(reader=reader).tasks
            assert (view.hidden, listed.hidden) == (not reads, not reads), reader.id
            if not reads:
                assert view.result.stdout == view.result.stderr == listed.result.stdout == ""
            for fact in facts:
                assert (b"secret" in readers.shown(fact, reader).data) is reads, reader.id


async def test_a_task_that_is_no_longer_remembered_is_nobodys_own(world):
    async with world.running() as control:
        readers = OutputReaders(control.projection, control.policy)
        fact = make_fact(Kind.task_finished, "task-old", data={"stdout": "secret"})
        assert readers.shown(fact, ADA).data == EMPTY
        assert readers.shown(fact, REVIEWER) == fact


async def test_a_policy_that_cannot_be_evaluated_shows_nothing(world):
    async with world.running() as control:
        await world.node()
        task = await finished(world, ADA)
        readers = OutputReaders(control.projection, Policy({
            "schema.cedarschema": b"entity Role in [Role]; entity Person, Agent, System in [Role];"
            b"entity Node; action run appliesTo { principal: [Agent], resource: [Node] };",
            "a.cedar": b'@id("all") permit (principal, action, resource);',
        }))  # fmt: skip
        fact = make_fact(Kind.task_finished, task.id, data=RESULT)
        assert b"secret" not in readers.shown(fact, ADA).data


async def test_an_agent_does_not_choose_the_labs_node(world):
    async with world.running() as control:
        await world.node()
        await world.node("labs1", "labs")
        with pytest.raises(Forbidden, match="agents-not-on-labs"):
            await control.tasks.submit(ADA, SubmitTask(code="print(1)", node="labs1"))
        assert (await control.tasks.submit(ADA, SubmitTask(code="print(1)"))).node == "node/exec1"
        sent = await control.tasks.submit(OWNER, SubmitTask(code="print(1)", node="labs1"))
        assert sent.node == "node/labs1"
