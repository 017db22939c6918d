"""Control's part of the API: thin, typed, each route with its permission.

server_routes = routes(control)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, get_args

from angelos.control.service import Control
from angelos.core.api import (
    CreatePerson,
    NodeList,
    Ok,
    PersonList,
    PersonView,
    ProposalList,
    ProposalState,
    ProposalView,
    Reason,
    Review,
    Rollback,
    RolledBack,
    StatusView,
    SubmitProposal,
    SubmitTask,
    TaskList,
    TaskState,
    TaskView,
)
from angelos.core.errors import InvalidInput
from angelos.core.ids import ProposalId, TaskId
from angelos.core.messages import Kind
from angelos.core.permissions import Permission
from angelos.core.routes import Call, Nothing, Route, whole_number

_P = Permission
MAX_LIMIT = 500


def routes(control: Control) -> list[Route]:
    """Return the routes of the control plane."""
    return [*_system(control), *_tasks(control), *_proposals(control), *_people(control)]


def _system(control: Control) -> list[Route]:
    async def status(_: Call[Nothing]) -> StatusView:
        return await control.status()

    async def nodes(_: Call[Nothing]) -> NodeList:
        return NodeList(nodes=control.nodes())

    async def rollback(call: Call[Rollback]) -> RolledBack:
        revision = await control.rollout.rollback(
            call.principal, call.params["repo"], call.body, call.trace
        )
        return RolledBack(revision=revision)

    return [
        Route("GET", "/status", _P.status_read, status, response=StatusView,
              summary="The system at a glance"),
        Route("GET", "/nodes", _P.nodes_read, nodes, response=NodeList, summary="All nodes"),
        Route("POST", "/repos/{repo}/rollback", _P.revisions_rollback, rollback, request=Rollback,
              response=RolledBack, summary="Take main back by a new commit"),
    ]  # fmt: skip


def _tasks(control: Control) -> list[Route]:
    async def submit(call: Call[SubmitTask]) -> TaskView:
        return await control.tasks.submit(call.principal, call.body, call.trace)

    async def list_tasks(call: Call[Nothing]) -> TaskList:
        state = _word(call.query, "state", TaskState)
        return TaskList(tasks=control.tasks.list(cast("TaskState | None", state), _limit(call)))

    async def show(call: Call[Nothing]) -> TaskView:
        return await control.tasks.view(TaskId(call.params["task"]), _wait(call))

    async def cancel(call: Call[Reason]) -> TaskView:
        task = TaskId(call.params["task"])
        return await control.tasks.cancel(call.principal, task, call.body.reason, call.trace)

    return [
        Route("POST", "/tasks", _P.tasks_run, submit, request=SubmitTask, response=TaskView,
              status=202, summary="Run code on a node"),
        Route("GET", "/tasks", _P.tasks_read, list_tasks, response=TaskList,
              query=("state", "limit"), summary="The newest tasks"),
        Route("GET", "/tasks/{task}", _P.tasks_read, show, response=TaskView, query=("wait",),
              summary="A task; wait=seconds waits for its end"),
        Route("POST", "/tasks/{task}/cancel", _P.tasks_cancel, cancel, request=Reason,
              response=TaskView, summary="Stop a task"),
    ]  # fmt: skip


def _proposals(control: Control) -> list[Route]:
    proposals = control.proposals

    async def propose(call: Call[SubmitProposal]) -> ProposalView:
        return await proposals.propose(call.principal, call.params["repo"], call.body, call.trace)

    async def list_proposals(call: Call[Nothing]) -> ProposalList:
        state = cast("ProposalState | None", _word(call.query, "state", ProposalState))
        repo = call.query.get("repo", "")
        return ProposalList(proposals=proposals.list(state, repo, _limit(call)))

    async def show(call: Call[Nothing]) -> ProposalView:
        return await proposals.view(ProposalId(call.params["proposal"]), _wait(call))

    async def approve(call: Call[Review]) -> ProposalView:
        proposal = ProposalId(call.params["proposal"])
        return await proposals.approve(call.principal, proposal, call.body, call.trace)

    async def reject(call: Call[Review]) -> ProposalView:
        proposal = ProposalId(call.params["proposal"])
        return await proposals.reject(call.principal, proposal, call.body, call.trace)

    return [
        Route("POST", "/repos/{repo}/proposals", _P.proposals_create, propose,
              request=SubmitProposal, response=ProposalView, status=202,
              summary="Propose edits against a base revision"),
        Route("GET", "/proposals", _P.proposals_read, list_proposals, response=ProposalList,
              query=("state", "repo", "limit"), summary="The newest proposals"),
        Route("GET", "/proposals/{proposal}", _P.proposals_read, show, response=ProposalView,
              query=("wait",), summary="A proposal; wait=seconds waits until it is settled"),
        Route("POST", "/proposals/{proposal}/approve", _P.proposals_review, approve,
              request=Review, response=ProposalView, summary="Approve what the digest names"),
        Route("POST", "/proposals/{proposal}/reject", _P.proposals_review, reject,
              request=Review, response=ProposalView, summary="Reject a proposal"),
    ]  # fmt: skip


def _people(control: Control) -> list[Route]:
    ledger, people = control.ledger, control.people

    async def list_people(_: Call[Nothing]) -> PersonList:
        return PersonList(people=await people.list())

    async def create(call: Call[CreatePerson]) -> PersonView:
        view = await people.create(call.body.name, call.body.role)
        data = {"role": view.role}
        await ledger.say(
            ledger.fact(Kind.person_added, view.id, call.principal.id, data=data, trace=call.trace)
        )
        return view

    async def remove(call: Call[Nothing]) -> Ok:
        name = call.params["name"]
        await people.remove(name)
        await ledger.say(
            ledger.fact(Kind.person_removed, f"person/{name}", call.principal.id, trace=call.trace)
        )
        return Ok()

    return [
        Route("GET", "/people", _P.people_manage, list_people, response=PersonList,
              summary="All people"),
        Route("POST", "/people", _P.people_manage, create, request=CreatePerson,
              response=PersonView, status=201, summary="Add a person; shows the token once"),
        Route("DELETE", "/people/{name}", _P.people_manage, remove, response=Ok,
              summary="Remove a person; the token is void at once"),
    ]  # fmt: skip


def _word(query: Mapping[str, str], name: str, words: Any) -> str | None:
    """Return a query parameter that is one of a Literal's words, or None."""
    word = query.get(name)
    if word is not None and word not in get_args(words):
        raise InvalidInput(f"{name}={word!r} is none of {', '.join(get_args(words))}.")
    return word


def _limit(call: Call[Nothing]) -> int:
    return whole_number(call, "limit", 50, MAX_LIMIT)


def _wait(call: Call[Nothing]) -> float:
    """Return the seconds to wait; more than the bound means the bound."""
    text = call.query.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError as error:
        raise InvalidInput(f"wait must be a number of seconds, not {text!r}.") from error
    if not seconds >= 0:
        raise InvalidInput(f"wait must be a number of seconds from 0, not {text!r}.")
    return seconds
