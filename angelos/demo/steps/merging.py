"""Steps 1 to 3: import, merge concurrent edits, refuse a stale proposal."""

from __future__ import annotations

import asyncio
from typing import Any

from angelos.client.rooms import RoomClient
from angelos.core.errors import Stale
from angelos.core.repository import NewText, UnifiedDiff
from angelos.demo import patches
from angelos.demo.world import World, expect


async def import_repository(world: World) -> dict[str, Any]:
    """Make `main` of a new repository from the interpreter's own modules."""
    created = await world.angelos.repos.create(world.repo, world.files, "import of the study")
    repo = await created.view()
    expect(repo.main == repo.dev, "a new repository starts with one revision on both branches")
    view = await world.repository.revision("main")
    expect(
        {entry.path for entry in view.files} == set(world.files),
        "main holds exactly the files that were imported",
    )
    for path, text in world.files.items():
        expect(await world.text(path) == text, f"{path} reads back as it was imported")
    world.revisions["first"] = repo.main
    return {"revision": repo.main, "tree": view.tree, "files": len(view.files)}


async def merge_at_once(world: World) -> dict[str, Any]:
    """Have two agents and a person change `statistics.py` at the same time."""
    path, base = patches.STATISTICS, world.revisions["first"]
    text = world.files[path]
    diff = UnifiedDiff(path=path, diff=patches.unified(path, text, patches.with_midrange(text)))
    new_text = NewText(path=path, text=patches.with_rms(text))

    async def person() -> None:
        place = f"{world.repo}/{path}"
        # What the agents propose is in the notebook once it has passed its tests.
        async with RoomClient(world.angelos.url, world.token, place, timeout=120) as room:
            for letter in patches.TYPED:
                await room.insert(len(room.text), letter)
            await room.wait_for(
                lambda now: all(part in now for part in (patches.MIDRANGE, patches.RMS))
            )

    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(world.agents["ada"].propose(base, [diff], "Add midrange"))
        second = tasks.create_task(world.agents["bob"].propose(base, [new_text], "Add rms"))
        tasks.create_task(person())
    live = (await world.repository.read_live(path)).decode()
    for part in (patches.MIDRANGE, patches.RMS, patches.TYPED):
        expect(
            live.count(part) == 1,
            f"the live file holds each change once, also {part.strip()[:24]!r}",
        )
    refusal = await world.agents["ada"].refusal(
        "approve", proposal=second.result().id, digest=second.result().digest
    )
    expect(refusal.code == "forbidden", f"an agent has no right to approve: {refusal}")
    for name, task in (("midrange", first), ("rms", second)):
        view = await world.settled(task.result().id)
        expect(view.state == "promoted" and view.revision, f"{name}: {view.state}, {view.reason}")
        world.revisions[name] = view.revision  # type: ignore[assignment]
    return {
        "proposals": [first.result().id, second.result().id],
        "dev": (await world.repository.view()).dev,
        "main": await world.main(),
        "typed": patches.TYPED.strip(),
        "refused_to_approve": refusal.code,
    }


async def refuse_stale(world: World) -> dict[str, Any]:
    """Propose a change of the title against the first revision, after the title has changed."""
    path = patches.STATISTICS
    edit = NewText(path=path, text=patches.with_other_title(world.files[path]))
    before = await world.main()
    refusal = await world.agents["bob"].refusal(
        "propose", repo=world.repo, base=world.revisions["first"], edits=[edit], message="Again"
    )
    expect(isinstance(refusal, Stale), f"the proposal is refused as stale: {refusal!r}")
    conflict = refusal.extra["conflicts"][0]
    expect("midrange" in conflict["theirs"], f"their text is shown: {conflict}")
    expect("the short way" in conflict["yours"], f"our text is shown: {conflict}")
    expect(await world.main() == before, "main has not moved")
    return {"code": refusal.code, "conflict": conflict, "base": world.revisions["first"]}
