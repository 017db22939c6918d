"""Ids by their beginning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angelos.cli.lookup import find_proposal, pick
from angelos.client import Angelos
from angelos.core.errors import InvalidInput, NotFound, Unavailable
from angelos.core.ids import new_proposal_id


def test_an_id_may_be_given_by_its_beginning():
    ids = ["prop-012345", "prop-012367", "prop-200000"]
    assert pick("prop-012345", ids, "proposal") == "prop-012345"
    assert pick("01234", ids, "proposal") == "prop-012345"
    assert pick("prop-2000", ids, "proposal") == "prop-200000"
    with pytest.raises(InvalidInput, match="stands for 2"):
        pick("0123", ids, "proposal")
    for unknown in ("9999", "prop-012345x"):
        with pytest.raises(NotFound):
            pick(unknown, ids, "proposal")


@pytest.mark.parametrize("short", ["", "-", "prop", "prop-", "prop-200", "200"])
def test_a_beginning_that_could_name_something_by_chance_names_nothing(short):
    with pytest.raises(InvalidInput, match="too short"):
        pick(short, ["prop-200000"], "proposal")


@given(st.sets(st.text("0123", min_size=3, max_size=5), min_size=1), st.data())
def test_a_whole_id_always_names_itself(ids, data):
    one = data.draw(st.sampled_from(sorted(ids)))
    assert pick(one, ids, "thing") == one


async def test_a_whole_id_is_not_looked_up_since_it_may_be_too_old_to_be_listed():
    identifier = new_proposal_id()
    async with Angelos("http://127.0.0.1:9") as nobody_there:
        assert (await find_proposal(nobody_there, identifier)).id == identifier
        with pytest.raises(Unavailable):
            await find_proposal(nobody_there, identifier[:-1])
