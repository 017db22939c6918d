"""JSON Schemas of parameters in paths and queries, for the OpenAPI document.

>>> parameter_schema("/tasks", "limit")["maximum"]
500
>>> is_required("/repos/{repo}/blame", "path")
True
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from angelos.core.api import ProposalState, TaskState
from angelos.core.permissions import Role
from angelos.core.routes import MAX_LIMIT

Schema = Mapping[str, Any]
_TEXT: Schema = {"type": "string", "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"}
"""The server refuses control characters in every parameter."""
_ENTRIES = 1_000


def _whole(high: int, low: int = 1) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


def _words(words: Any) -> Schema:
    return {"type": "string", "enum": list(words)}


def _form(pattern: str) -> Schema:
    return {"type": "string", "pattern": pattern}


_MEMORY = _form("^mem-[0-9a-f]{32}$")
_ROLE = _form("^[a-z][a-z0-9-]{0,31}$")
_PROMOTION = _form("^mprom-[0-9a-f]{32}$")
_REPO = _form("^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
_REVISION = _form("^[0-9a-f]{64}$")
_BRANCH = _form("^[^\\u0000-\\u0020~^:?*\\[\\\\\\u007f]{1,200}$")
"""Every name of a branch has this form; not all that have it are names (`core.branches`)."""
_NAMESPACE = _form("^(shared|(person|agent)/[A-Za-z0-9][A-Za-z0-9._-]{0,63})?$")
_OTHERS = _form("^(node|agent)/[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
_NAMES: Mapping[str, Schema] = {
    "limit": _whole(MAX_LIMIT),
    "wait": {"type": "number", "minimum": 0},
}
_AT: Mapping[tuple[str, str], Schema] = {
    ("/audit/entries", "after"): _whole(2**62, -1),
    ("/audit/entries", "limit"): _whole(_ENTRIES),
    ("/audit/entries/{index}/proof", "index"): _form("^(0|[1-9][0-9]{0,15})$"),
    ("/git-imports", "name"): _REPO,
    ("/hub/dead-letters", "limit"): _whole(_ENTRIES),
    ("/repos/{repo}/branches", "name"): _BRANCH,
    ("/repos/{repo}/branches", "expected"): _REVISION,
    ("/repos/{repo}/blame", "path"): {**_TEXT, "minLength": 1},
    ("/repos/{repo}/live", "path"): {**_TEXT, "minLength": 1},
    ("/repos/{repo}/revisions/{revision}/file", "path"): {**_TEXT, "minLength": 1},
    ("/memories", "cursor"): _form("^(mem-[0-9a-f]{32})?$"),
    ("/memories", "superseded"): _words(["yes", "no"]),
    ("/memories/{id}", "id"): _MEMORY,
    ("/memories/{id}/correct", "id"): _MEMORY,
    ("/models", "role"): _form("^([a-z][a-z0-9-]{0,31})?$"),
    ("/models/{model}", "model"): _form("^[a-z][a-z0-9-]{0,31}(:[1-9][0-9]{0,8})?$"),
    ("/models/{model}/evaluate", "model"): _form("^[a-z][a-z0-9-]{0,31}(:[1-9][0-9]{0,8})?$"),
    ("/models/{model}/promotions", "model"): _ROLE,
    ("/models/{model}/runs", "model"): _ROLE,
    ("/models/{model}/rollback", "model"): _ROLE,
    ("/model-promotions/{id}", "id"): _PROMOTION,
    ("/model-promotions/{id}/approve", "id"): _PROMOTION,
    ("/model-promotions/{id}/reject", "id"): _PROMOTION,
    ("/model-runs/{id}", "id"): _form("^mrun-[0-9a-f]{32}$"),
    ("/policy/explain", "role"): _words(Role.__members__),
    ("/principals/{kind}/{name}/quarantine", "kind"): _words(["agent", "node"]),
    ("/principals/{kind}/{name}/release", "kind"): _words(["agent", "node"]),
    ("/proposals", "state"): _words(get_args(ProposalState)),
    ("/repos/{repo}/blame", "after"): _whole(10_000_000, 0),
    ("/repos/{repo}/blame", "limit"): _whole(2_000),
    ("/repos/{repo}/pending", "limit"): _whole(200),
    ("/tasks", "state"): _words(get_args(TaskState)),
}
_REQUIRED = frozenset(
    {
        ("/git-imports", "name"),
        ("/repos/{repo}/blame", "path"),
        ("/repos/{repo}/branches", "name"),
        ("/repos/{repo}/branches", "expected"),
        ("/repos/{repo}/live", "path"),
        ("/repos/{repo}/revisions/{revision}/file", "path"),
    }
)


_FIELDS: Mapping[tuple[str, str], Schema] = {
    ("ChangePerson", ""): {
        "anyOf": [
            {"required": ["role"], "properties": {"role": {"type": "string"}}},
            {"required": ["new_token"], "properties": {"new_token": {"const": True}}},
        ],
    },
    ("CherryPick", "branch"): _BRANCH,
    ("CherryPick", "revision"): _REVISION,
    ("CommitEdits", "branch"): _BRANCH,
    ("CommitEdits", "expected"): _REVISION,
    ("Consolidate", "namespace"): _NAMESPACE,
    ("CreatePerson", "role"): _words(["viewer", "researcher", "reviewer", "operator", "admin"]),
    ("CreateBranch", "name"): _BRANCH,
    ("DeadLetterPositions", "destination"): _OTHERS,
    ("Remember", "namespace"): _NAMESPACE,
    ("Rollback", "to"): _REVISION,
    ("SubmitProposal", "base"): _form("^(main|dev|[0-9a-f]{64})$"),
    ("UploadFile", "content"): _form("^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{3}=)?$"),
}
"""What the code checks beyond the types of a body's fields; the empty name is the body itself."""


def refine(schemas: Mapping[str, dict[str, Any]]) -> None:
    """Write into the schemas of bodies what the code checks beyond their types."""
    for (body, field), more in _FIELDS.items():
        if body in schemas:
            place = schemas[body] if not field else schemas[body]["properties"][field]
            place.pop("$ref", None)
            place.update(more)


def parameter_schema(path: str, name: str) -> Schema:
    """Return the schema of a parameter of a route."""
    return _AT.get((path, name)) or _NAMES.get(name) or _TEXT


def is_required(path: str, name: str) -> bool:
    """Return whether a route is refused without this parameter of its query."""
    return (path, name) in _REQUIRED
