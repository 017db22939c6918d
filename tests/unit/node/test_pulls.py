"""Revisions pulled one after the other."""

from __future__ import annotations

from angelos.core.ids import Revision
from angelos.core.messages import Checkout
from angelos.testing import signed_bundle
from tests.unit.node.fakes import KEY, World, world

__all__ = ["world"]


def add(world: World, content: bytes, repo: str = "study") -> Revision:
    bundle = signed_bundle(KEY, {"a": content}, repo)
    world.bundles[bundle.signed.revision] = bundle
    return bundle.signed.revision


async def test_the_revision_asked_for_last_is_in_force_however_long_the_first_takes(
    world: World,
) -> None:
    first, last = add(world, b"1"), add(world, b"2")
    commands = [
        world.command(Checkout(repo="study", branch="main", revision=first, health=("wait",))),
        world.command(Checkout(repo="study", branch="main", revision=last)),
    ]
    apart = add(world, b"3", "apart")
    beside = world.command(Checkout(repo="apart", branch="main", revision=apart))
    await world.put(commands[0])
    await world.sandbox.waits.wait()
    await world.put(commands[1], beside)
    await world.acked(beside)  # of another repository, whose turn does not come after theirs
    world.sandbox.release.set()
    await world.acked(*commands)
    revisions = [f.revision for f in world.channel.of("checkout.healthy")]
    assert revisions == [apart, first, last]
    current = world.config.directory / "checkouts" / "study" / "current"
    assert current.readlink().name == last
