"""Revisions pulled one after the other."""

from __future__ import annotations

import hashlib

from angelos.core.ids import PrincipalId, Revision
from angelos.core.messages import Checkout
from angelos.core.revision import Bundle, Commit, entry_for, sign_commit, tree_hash
from tests.unit.node.fakes import KEY, World, world

__all__ = ["world"]


def add(world: World, content: bytes, repo: str = "study") -> Revision:
    tree = (entry_for("a", content),)
    commit = Commit(
        repo=repo, parents=(), tree=tree_hash(tree), author=PrincipalId("person/p"),
        message="", at=1,
    )  # fmt: skip
    blobs = {hashlib.sha256(content).hexdigest(): content}
    bundle = Bundle(signed=sign_commit(KEY, commit), tree=tree, blobs=blobs)
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
