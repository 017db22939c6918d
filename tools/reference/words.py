"""roles.md, errors.md and messages.md: the words of the system, each from where it is defined."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable

from angelos.core.errors import BY_CODE
from angelos.core.facts import EPHEMERAL, PAYLOADS, Fact, Kind, StepResult
from angelos.core.messages import (
    CancelTask,
    Checkout,
    Command,
    Limits,
    RevokeGrants,
    RunTask,
    Status,
    Tier,
)
from angelos.core.permissions import Permission, Role
from angelos.core.policy.access import permissions_of
from tools.reference.source import Field, code, described, fields, first, head, table, texts

_DATA = """\
`data` are MessagePack of the payload of the kind, and stay as their author encoded them. A reader
of events gets them as a JSON object, without the command that some carry."""
_ERRORS = """\
An error has one stable code, wherever it crosses a boundary: in HTTP answers
(`application/problem+json`, RFC 9457), in the channel of nodes and agents, in `angelos ... --json`,
and as a class of `angelos.core.errors` that the client raises again."""


def roles() -> str:
    """Return roles.md."""
    said = texts(Permission)
    rows = [
        (code(p), *("x" if p in permissions_of(role) else "" for role in Role), said[p.name])
        for p in Permission
    ]
    told = (
        "A person has one role, given with `angelos person add --role`; whoever holds the server's "
        "own token is `person/owner`, an admin. Agents and nodes have the role of their kind. What "
        "a role may ask for, the [policy](policy.md) may still refuse."
    )
    return head("Roles", told) + "\n" + table(("permission", *Role, ""), rows) + "\n"


def errors() -> str:
    """Return errors.md."""
    rows = [
        (code(name), str(cls.status), code(cls.__name__), first(cls))
        for name, cls in sorted(BY_CODE.items(), key=lambda item: (item[1].status, item[0]))
    ]
    return head("Errors", _ERRORS) + "\n" + table(("code", "HTTP", "class", ""), rows) + "\n"


def messages() -> str:
    """Return messages.md."""
    parts = [
        head("Messages", "Facts go up and are appended to the journal; commands go down and carry "
             "a signed grant. On the wire each is MessagePack of a struct of "
             "`angelos/core/facts.py` or `angelos/core/messages.py`. The same for programs is "
             "[messages.schema.json](messages.schema.json)."),
        "## Fact", first(Fact), described(Fact),
        _DATA,
        "## Kinds of facts",
        "A kind that does not last is not kept by the audit log.",
        table(("kind", "subject", "lasts", ""), _kinds(fields(Kind))),
        "## Command", first(Command), described(Command),
    ]  # fmt: skip
    for payload in (RunTask, CancelTask, Checkout, RevokeGrants):
        tag = payload.__struct_config__.tag
        parts += [f"### {payload.__name__}", f"`{tag}`: {first(payload)}", described(payload)]
    parts.insert(parts.index("## Command"), "\n\n".join(_payloads()))
    parts += ["## StepResult", first(StepResult), described(StepResult)]
    parts += ["## Limits", first(Limits), _limits()]
    for words in (Status, Tier):
        said = texts(words)
        rows = [(code(word), said[word.name]) for word in words]
        parts += [f"## {words.__name__}", first(words), table(("word", ""), rows)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _payloads() -> Iterable[str]:
    """Yield a section for each kind of fact."""
    for kind, payload in PAYLOADS.items():
        yield f"### {kind}"
        yield f"`{payload.__name__}`: {first(payload)}"
        if payload.__struct_fields__:
            yield described(payload)


def _kinds(kinds: Iterable[Field]) -> Iterable[tuple[str, str, str, str]]:
    """Yield a row for each kind; one whose line names no subject has that of those like it."""
    subjects: dict[str, str] = {}
    for field in kinds:
        kind = Kind[field.name]
        family = kind.partition(".")[0]
        named = re.match(r"subject: ([^;]+)(?:; )?(.*)", field.text)
        if named:
            subjects[family] = named[1]
        text = named[2] if named else field.text
        lasts = "" if kind in EPHEMERAL else "yes"
        yield (
            code(kind),
            code(subjects.get(family, "")),
            lasts,
            text.removesuffix("not lasting").removesuffix("; "),
        )


def _limits() -> str:
    source = ast.parse(textwrap.dedent(inspect.getsource(Limits.__post_init__)))
    bounds = next(
        ast.literal_eval(node.value)
        for node in ast.walk(source)
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "bounds" and node.value
    )
    rows = [
        (code(f.name), f"{getattr(Limits(), f.name):,}",
         f"{bounds[f.name][0]:,} to {bounds[f.name][1]:,}", f.text)
        for f in fields(Limits)
    ]  # fmt: skip
    return table(("limit", "default", "bounds", ""), rows)
