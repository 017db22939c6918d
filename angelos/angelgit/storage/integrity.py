"""Reads everything that is stored under a hash, and checks it against the hash."""

from __future__ import annotations

import hashlib

from angelos.adapters.stores.postgres import Database
from angelos.angelgit.storage.objects import ObjectCache, Objects
from angelos.angelgit.storage.sql import NamedQueries
from angelos.core.errors import Tampered
from angelos.core.revision_v2 import SignedCommitObject

_PAGE = 200


async def check_contents(database: Database) -> int:
    """Return how many contents and commits are stored; raise `Tampered` if one is wrong.

    Blobs of which pieces are missing are no content yet: their upload was never completed.
    """
    count = 0
    async with database.transaction() as connection:
        queries = NamedQueries(connection)
        count += await _check_objects(queries)
        count += await _check_blobs(queries)
        count += await _check_commits(queries)
    return count


async def _check_objects(queries: NamedQueries) -> int:
    objects = Objects(queries, ObjectCache())
    count, after = 0, b""
    while page := await queries.all("object_hashes", after=after, limit=_PAGE):
        await objects.load([row[0].hex() for row in page])
        count, after = count + len(page), page[-1][0]
    return count


async def _check_blobs(queries: NamedQueries) -> int:
    hashes = [row[0] for row in await queries.all("complete_blobs")]
    for digest in hashes:
        sha, number = hashlib.sha256(), 0
        while row := await queries.one("blob_piece", sha256=digest, number=number):
            sha.update(row[0])
            number += 1
        if sha.digest() != digest:
            raise Tampered(f"The stored blob {digest.hex()[:12]} was changed.")
    return len(hashes)


async def _check_commits(queries: NamedQueries) -> int:
    count, after = 0, b""
    while page := await queries.all("all_commits", after=after, limit=_PAGE):
        for revision, body, signature in page:
            if SignedCommitObject(body=body, signature=signature).revision != revision.hex():
                raise Tampered(f"The stored commit {revision.hex()[:12]} was changed.")
        count, after = count + len(page), page[-1][0]
    return count
