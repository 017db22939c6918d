"""The demo's steps for a notebook, against a system that is running (`make lab`).

from angelos.demo.tour import Tour

tour = await Tour.begin()
await tour.step("import")
await tour.end()
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from angelos.demo.steps import STEPS
from angelos.demo.world import AGENTS, World, attach, start_agent


class Tour:
    """The steps of the main job, one call each, on a repository and agents of its own."""

    def __init__(self, world: World, stack: AsyncExitStack) -> None:
        self.world = world
        self._stack = stack
        self._steps = {name: (title, step) for name, title, step in STEPS}

    @classmethod
    async def begin(cls) -> Tour:
        """Connect to the running system and start three agents."""
        async with AsyncExitStack() as stack:
            world = await attach(stack)
            for name in AGENTS:
                await start_agent(world, name, stack)
            return cls(world, stack.pop_all())
        raise AssertionError  # the stack swallows nothing

    async def step(self, name: str) -> dict[str, Any]:
        """Carry out one step and return its evidence; raise when it does not do what it says."""
        title, step = self._steps[name]
        began = time.monotonic()
        evidence = await step(self.world)
        print(f"ok, {time.monotonic() - began:.2f} s: {title}")  # noqa: T201 - for a notebook
        return msgspec.to_builtins(evidence)

    async def end(self) -> None:
        """Stop the agents and disconnect; the system keeps running."""
        await self._stack.aclose()
