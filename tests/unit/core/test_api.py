"""Requests from outside: names and sizes have bounds."""

import msgspec
import pytest

from angelos.core import api


@pytest.mark.parametrize("name", ["a", "exec1", "a.b-c_d", "A" * 64])
def test_good_names(name: str) -> None:
    assert msgspec.convert({"name": name, "role": "viewer"}, api.CreatePerson).name == name


@pytest.mark.parametrize("name", ["", ".", "-a", "a b", "a/b", "a\n", "a" * 65, "ü", "a\0"])
def test_bad_names(name: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": name, "role": "viewer"}, api.CreatePerson)


@pytest.mark.parametrize(
    "body",
    [
        {"base": "main", "edits": [], "message": "none"},
        {"base": "main", "edits": [{"kind": "move", "path": "a"}], "message": "unknown kind"},
        {"base": "main", "edits": [{"kind": "text", "path": "a"}], "message": "no text"},
        {"base": "main", "edits": [{"kind": "delete", "path": "a"}] * 257, "message": "many"},
        {"base": "main", "edits": [{"kind": "delete", "path": "a"}], "message": "x" * 2001},
        {"base": "main", "edits": [{"kind": "delete", "path": "a", "x": 1}], "message": "field"},
    ],
)
def test_bad_proposals(body: dict) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(body, api.SubmitProposal)
