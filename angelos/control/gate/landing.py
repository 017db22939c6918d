"""Looks at a tested candidate from a process of its own, before `main` moves to it.

    check = SecondProcess(repository, revision_key.public)
    await check.check("study", candidate, main, tree)        # or raises Tampered

The server hands the signed revision out as it does to a node; the second process, which holds no
key and no connection, verifies it as a node does, byte for byte: the signature, the commits down to
the `main` that the tests ran against, every directory and every content that `main` did not have.
Its tree must be the one that the facts of the tests name, and a tree's hash covers every byte below
it. Nodes verify it once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
from asyncio.subprocess import DEVNULL, PIPE

import msgspec

from angelos.core.errors import AngelError, Tampered, Unavailable
from angelos.core.ids import Revision
from angelos.core.pending import MAX_BATCH
from angelos.core.ports import Repository
from angelos.core.revision_v2 import (
    SignedCommitObject,
    decode_commit,
    directory_hash,
    verify_commit_object,
)
from angelos.core.signing import VerifyKey

TIMEOUT_S = 120.0
MAX_CHAIN = MAX_BATCH + 1
"""Commits of a candidate: one for each proposal, and one of outputs."""


class LandingCase(msgspec.Struct, frozen=True, kw_only=True):
    """What the second process is given."""

    key: bytes
    """The repository's public key, raw."""
    repo: str
    candidate: Revision
    main: Revision
    tree: str
    objects: dict[str, bytes]
    """The directories that `main` does not have, by their hashes."""
    contents: dict[str, bytes]
    """The contents that it does not have."""
    chain: tuple[SignedCommitObject, ...]
    """The candidate's commit and those below it, down to the one whose parent is `main`."""


def problem_of(case: LandingCase) -> str:
    """Return what is wrong with a candidate, "" if it is what was tested."""
    key, below = VerifyKey(case.key), case.candidate
    tree = ""
    try:
        for signed in case.chain:
            commit = verify_commit_object(key, signed, below)
            if commit.repo != case.repo or len(commit.parents) != 1:
                return f"commit {below[:12]} is another repository's, or a merge"
            tree, below = tree or commit.tree, commit.parents[0]
    except AngelError as error:
        return error.detail
    if below != case.main:
        return f"it was not made on {case.main[:12]}"
    if tree != case.tree:
        return f"it has the tree {tree[:12]}, and {case.tree[:12]} was tested"
    wrong = [digest for digest, body in case.objects.items() if directory_hash(body) != digest]
    wrong += [digest for digest, body in case.contents.items() if _sha256(body) != digest]
    return f"{wrong[0][:12]} is not as signed" if wrong else ""


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


class SecondProcess:
    """`control.context.LandingCheck` in a process of its own."""

    def __init__(self, repository: Repository, key: VerifyKey) -> None:
        self._repository = repository
        self._key = key

    async def check(self, repo: str, candidate: Revision, main: Revision, tree: str) -> None:
        """Return if a candidate is signed, made on `main`, and has exactly the tested tree."""
        bundle = await self._repository.bundle(repo, candidate, have=main)
        case = LandingCase(
            key=self._key.raw,
            repo=repo,
            candidate=candidate,
            main=main,
            tree=tree,
            objects=bundle.objects,
            contents=bundle.blobs,
            chain=await self._chain(repo, bundle.signed, main),
        )
        problem = await _ask(msgspec.msgpack.encode(case))
        if problem:
            raise Tampered(f"{candidate[:12]}: {problem}.")

    async def _chain(
        self, repo: str, signed: SignedCommitObject, main: Revision
    ) -> tuple[SignedCommitObject, ...]:
        """Return the candidate's commit and those below it, as far as `main`."""
        chain = [signed]
        while (parent := next(iter(decode_commit(chain[-1].body).parents), main)) != main:
            if len(chain) > MAX_CHAIN:
                break
            chain.append((await self._repository.bundle(repo, parent, have=parent)).signed)
        return tuple(chain)


async def _ask(body: bytes) -> str:
    """Return what the second process says; raise `Unavailable` if it says nothing."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-m",
        "angelos.control.gate.landing",
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        cwd="/",
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, _ = await process.communicate(body)
        answer = msgspec.msgpack.decode(output, type=tuple[str, str])
    except (TimeoutError, msgspec.MsgspecError) as error:
        raise Unavailable("The second look at a candidate gave no answer.") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode or answer[0] != "looked":
        raise Unavailable("The second look at a candidate gave no answer.")
    return answer[1]


def main() -> None:
    """Look at the candidate on standard input and print what is wrong with it."""
    case = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=LandingCase)
    sys.stdout.buffer.write(msgspec.msgpack.encode(("looked", problem_of(case))))


if __name__ == "__main__":
    main()
