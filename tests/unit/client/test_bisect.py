"""Bisect: the search itself, over every place at which a line can become bad."""

from __future__ import annotations

import math

import pytest

from angelos.client.bisect import search
from angelos.core.history import CommitSummary

LINE = [
    CommitSummary(id=f"{i:064x}", parents=(), authors=("agent/ada",), message="", at=i)
    for i in range(20)
]


@pytest.mark.parametrize("first", range(1, 20))
async def test_the_first_bad_commit_is_named_in_few_runs(first):
    async def fails(commit):
        return commit.at >= first

    done = await search(LINE, fails)
    assert done.first == LINE[first]
    assert done.tried <= 2 + math.ceil(math.log2(len(LINE)))


async def test_what_cannot_be_told_apart_is_named():
    async def fails(commit):
        return None if commit.at in {9, 10} else commit.at >= 10

    done = await search(LINE, fails)
    assert done.first is None
    assert done.candidates == tuple(LINE[9:12])


async def test_skipped_commits_elsewhere_do_not_matter():
    async def fails(commit):
        return None if commit.at in {3, 10, 11} else commit.at >= 15

    assert (await search(LINE, fails)).first == LINE[15]
