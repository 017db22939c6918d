"""Steps 4 to 6: tests, supervisor and people, canary and roll-out."""

from __future__ import annotations

import asyncio
from typing import Any

from angelos.core.errors import AngelError
from angelos.core.facts import CheckoutFailed, CheckoutHealthy, PrincipalQuarantined
from angelos.core.repository import NewText
from angelos.demo import patches, study
from angelos.demo.world import World, expect


async def keep_broken_off(world: World) -> dict[str, Any]:
    """Propose a mutant of each module; each has to fail its doctests and never be in dev."""
    before = await world.main()
    mutants = {
        patches.STATISTICS: patches.broken_statistics,
        patches.DIFFLIB: patches.broken_difflib,
    }
    evidence: dict[str, Any] = {"main": before, "mutants": []}
    for path, mutate in mutants.items():
        text = await world.text(path)
        edit = NewText(path=path, text=mutate(text))
        proposal = await world.agents["ada"].propose("main", [edit], f"Speed {path} up")
        view = await world.settled(proposal.id)
        failed = [step for step in view.steps if step.status != "ok"]
        expect(view.state == "rejected", f"{path}: {view.state}, {view.reason}")
        unit = next((step for step in failed if step.name == "unit"), None)
        expect(unit and "Failed example" in unit.output, f"the doctest's output is kept: {failed}")
        tested = await world.fact("proposal.tested", view.id, outcome="failed")
        reverted = await world.fact("proposal.reverted", view.id)
        live = (await world.repository.read_live(path)).decode()
        expect(
            mutate(text) != live and "(n + 1)" not in live, f"dev is rid of the mutant of {path}"
        )
        evidence["mutants"].append(
            {
                "proposal": view.id,
                "step": "unit",
                "task": unit.task if unit else "",
                "tested": tested.offset,
                "reverted": reverted.offset,
            }
        )
    expect(await world.main() == before, "main has not moved")
    return evidence


async def review(world: World) -> dict[str, Any]:
    """See the supervisor's approval, give a person's, and have a policy change refused."""
    promoted = await world.fact("proposal.approved", actor="system/supervisor")
    path = study.PROTECTED
    edit = NewText(path=path, text=patches.looser_tolerance(await world.text(path)))
    before = await world.main()
    proposal = await world.agents["bob"].propose("main", [edit], "Allow a looser tolerance")
    view = await world.settled(proposal.id)
    expect(view.state == "waiting" and view.needs == 1, f"it waits for a person: {view.state}")
    expect(await world.main() == before, "main has not moved while it waits")
    live = (await world.repository.read_live(path)).decode()
    expect(live == await world.text(path), "nor has what people have open")
    (pending,) = await world.repository.pending(path)
    expect(pending.id == proposal.id and pending.hunks, "it is an overlay, in hunks")
    approved = await world.cli("proposal", "approve", proposal.id)
    expect(approved["exit"] == 0, f"`angelos proposal approve` works: {approved}")
    view = await world.settled(proposal.id, ("promoted", "rejected", "rolled-back"))
    expect(view.state == "promoted", f"approved by a person it is promoted: {view.reason}")
    quarantined = await _policy_change(world)
    return {
        "by_policy": {"proposal": promoted.subject, "offset": promoted.offset},
        "by_person": {"proposal": view.id, "revision": view.revision, "by": list(view.approvals)},
        "quarantined": quarantined,
    }


async def _policy_change(world: World) -> dict[str, Any]:
    mallory = world.agents["mallory"]
    edit = NewText(path=study.POLICY, text=patches.without_review(await world.text(study.POLICY)))
    refusal = await mallory.refusal(
        "propose", repo=world.repo, base="main", edits=[edit], message="Simplify review"
    )
    # The quarantine may cut the connection before the answer is through; the fact stays.
    expect(refusal.code in ("forbidden", "unavailable"), f"it is refused: {refusal!r}")
    refused = await world.fact("proposal.refused", actor=f"agent/{mallory.name}", outcome="policy")
    fact = await world.fact("principal.quarantined", f"agent/{mallory.name}")
    cut = await asyncio.wait_for(mallory.cut, 30)
    after = await _refused_everything(world)
    return {
        "refused": refused.offset,
        "offset": fact.offset,
        "reason": fact.read(PrincipalQuarantined).reason,
        "cut": cut,
        "after": after,
    }


async def _refused_everything(world: World) -> str:
    """Return the code with which a quarantined agent is refused, certificate and token alike."""
    refusal = await world.agents["mallory"].refusal("run", code="print(1)")
    expect(
        refusal.code in ("unauthenticated", "unavailable"), f"its certificate is void: {refusal!r}"
    )
    try:
        token = await world.angelos.agents.add(world.agents["mallory"].name)
    except AngelError as error:
        return error.code
    folder = world.data_dir / "agents" / "again"
    again = await world.cli("agent", "join", "-", str(folder), stdin=token.token)
    expect(again["exit"] == 1, f"a quarantined agent gets no new certificate: {again}")
    return str(again["answer"].get("code"))


async def deploy(world: World) -> dict[str, Any]:
    """Follow a merge to both nodes, then one whose health command fails."""
    good = await world.main()
    canary = await world.node_has("labs1", good)
    execution = await world.node_has("exec1", good)
    expect(canary.read(CheckoutHealthy).canary, "the labs node took it as canary")
    path = study.REFERENCE
    edit = NewText(path=path, text=patches.wrong_reference(await world.text(path)))
    proposal = await world.agents["bob"].propose("main", [edit], "Update the reference")
    # Its tests run first, in two boxes each.
    sick = await world.fact("checkout.failed", "node/labs1", within=90)
    done = await world.fact("rollback.done", f"{world.repo}:main", cause="health")
    view = await world.settled(proposal.id, ("rolled-back", "rejected"))
    expect(view.state == "rolled-back", f"the sick merge is rolled back: {view.state}")
    now = await world.main()
    back = await world.repository.revision(now)
    was = await world.repository.revision(good)
    expect(back.tree == was.tree, "main has the tree of the last healthy revision")
    expect(back.parents == (sick.revision,), "its parent is the sick commit")
    await world.node_has("exec1", now)
    return {
        "healthy": good,
        "canary": canary.offset,
        "execution": execution.offset,
        "sick": sick.revision,
        "detail": sick.read(CheckoutFailed).detail,
        "rolled_back_by": done.offset,
        "main": now,
        "tree": back.tree,
    }
