"""The routes: parameters, bounds, and the whole way through a handler."""

from __future__ import annotations

import pytest

from angelos.control.routes import routes
from angelos.core.api import Review, Rollback, SubmitTask
from angelos.core.errors import InvalidInput, NotFound
from angelos.core.permissions import Principal
from angelos.core.routes import Call, Nothing, render
from tests.unit.control.fakes import ADA, OPERATOR, PERSON, REVIEWER, edit


async def call(
    control, method, path, principal: Principal = PERSON, body=None, query=None, **params
):
    """Call a route's handler and render its answer."""
    route = next(r for r in routes(control) if (r.method, r.path) == (method, path))
    body = body if body is not None else Nothing()
    answer = await route.handler(
        Call(principal=principal, params=params, query=query or {}, body=body)
    )
    assert isinstance(answer, route.response)
    render(route, answer)
    return answer


async def test_both_roads_through_the_routes(world):
    async with world.running() as control:
        await world.node()
        task = await call(control, "POST", "/tasks", body=SubmitTask(code="print(1)"))
        task = await call(control, "GET", "/tasks/{task}", query={"wait": "10"}, task=task.id)
        assert task.state == "finished"
        assert (await call(control, "GET", "/tasks")).tasks == (task,)
        path = "/repos/{repo}/proposals"
        body = edit("protected/x.py")
        view = await call(control, "POST", path, ADA, body, repo="study")
        one = "/proposals/{proposal}"
        view = await call(control, "GET", one, query={"wait": "10"}, proposal=view.id)
        assert view.state == "waiting"
        assert (await call(control, "GET", "/status")).waiting == 1
        waiting = await call(control, "GET", "/proposals", query={"state": "waiting"})
        assert waiting.proposals == (view,)
        review = Review(digest=view.digest)
        await call(control, "POST", one + "/approve", REVIEWER, review, proposal=view.id)
        await world.reaches(view.id, "promoted")
        status = await call(control, "GET", "/status")
        assert status.waiting == 0
        assert status.repos[0].main == control.projection.state.proposals[view.id].revision
        assert status.tier == "full"
        back = Rollback(to=view.base)
        answer = await call(control, "POST", "/repos/{repo}/rollback", OPERATOR, back, repo="study")
        assert answer.revision == await world.repository.head("study", "main")


@pytest.mark.parametrize("wait", ["x", "-1", "nan", "", "1e"])
async def test_wait_must_be_seconds(world, wait):
    async with world.running() as control:
        with pytest.raises(InvalidInput, match="wait"):
            await call(control, "GET", "/tasks/{task}", query={"wait": wait}, task="task-1")


@pytest.mark.parametrize(
    "limit",
    ["x", "0", "-1", "501", "\u0663", "9" * 5000, "000000001999", "000000001" + "9" * 5000, ""],
)
async def test_limit_is_bounded(world, limit):
    async with world.running() as control:
        with pytest.raises(InvalidInput, match="limit"):
            await call(control, "GET", "/tasks", query={"limit": limit})


async def test_states_are_words_of_the_api(world):
    async with world.running() as control:
        for path in ("/tasks", "/proposals"):
            with pytest.raises(InvalidInput, match="state"):
                await call(control, "GET", path, query={"state": "lost"})


async def test_unknown_ids_are_not_found(world):
    async with world.running() as control:
        with pytest.raises(NotFound):
            await call(control, "GET", "/tasks/{task}", task="task-1")
        with pytest.raises(NotFound):
            await call(control, "GET", "/proposals/{proposal}", proposal="x")
