"""Cedar decides on permission: default deny, always with the schema, and failing closed.

cedarpy alone fails open: a `forbid` that reads a missing attribute raises an error, is skipped,
and the answer is Allow. So policies are validated against the schema when they are loaded, each
request is too, and anything but an Allow without errors is a deny.

    policy = Policy.load(POLICY_DIR)
    decision = policy.decide(Request(principal=PrincipalId("agent/ada"), role="agent",
                                     action="propose", resource=("Repo", "study"), context={...}))
    decision.rules            # ("propose.agents",)
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from angelos.core.errors import Forbidden, Refused
from angelos.core.ids import PrincipalId, is_principal
from angelos.core.permissions import Role

if TYPE_CHECKING:
    import cedarpy

SCHEMA = "schema.cedarschema"
POLICY_DIR = Path(__file__).parent
_TYPES = {"person": "Person", "agent": "Agent", "node": "Node", "system": "System"}
_GROUP = re.compile(r"\baction\b[^;{]*\bin\b")
"""An action of the schema that is in a group."""
MAX_ANSWERS = 4_096
"""Answers that are kept; when there are more, all are forgotten."""
_LADDER = (Role.viewer, Role.researcher, Role.reviewer, Role.operator, Role.admin)
"""Each includes the one before; agents and nodes are not part of it."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A question to the policy. Numbers are whole: milliseconds, per mille."""

    principal: PrincipalId
    role: str
    """Empty for `system/...`."""
    action: str
    resource: tuple[str, str]
    """Type (`Node`, `Repo`, `Host` or `Service`) and id."""
    context: Mapping[str, bool | int | str]


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The policy's answer, with the rules that decided."""

    allowed: bool
    rules: tuple[str, ...]
    """The `@id`s that decided; empty when no rule allowed it."""
    policy: str
    errors: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """The reason, for people to read."""
        if self.errors:
            return f"the policy could not be evaluated: {'; '.join(self.errors)}"
        if self.rules:
            return f"rule {', '.join(self.rules)}"
        return "no rule of the policy allows it"


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One policy of the files."""

    id: str
    effect: Literal["permit", "forbid"]
    actions: tuple[str, ...] | None
    """Those that its scope names; None: any."""
    hint: str
    text: str


class Policy:
    """A parsed, validated policy set."""

    def __init__(self, files: Mapping[str, bytes], *, sliced: bool = True) -> None:
        """Parse and validate the files, by name; raise `Refused` unless all are valid.

        Unsliced, every question reads every rule: the answers are the same.
        """
        import cedarpy  # the extra `server`: a node or client asks nothing

        try:
            schema = files[SCHEMA].decode()
        except (KeyError, UnicodeDecodeError) as error:
            raise _unusable(f"{SCHEMA} is missing or is not text") from error
        try:
            texts = [files[name].decode() for name in sorted(files) if name.endswith(".cedar")]
            text = "\n".join(texts)
            checked = cedarpy.validate_policies(text, schema)
            if not checked.validation_passed:
                raise _unusable("; ".join(map(str, checked.errors)) or "it does not validate")
            grouped = not sliced or bool(_GROUP.search(schema))
            self.rules = _rules(json.loads(cedarpy.policies_to_json_str(text)), grouped=grouped)
            self._hints = {rule.id: rule.hint for rule in self.rules if rule.hint}
            self._slices = _slices(text, grouped=grouped)
            self._schema = cedarpy.Schema.from_str(schema)
            self._roles = cedarpy.Entities.from_json_str(json.dumps(_roles()), self._schema)
        except ValueError as error:
            raise _unusable(str(error)) from error
        self._answers: dict[tuple[Any, ...], Decision] = {}
        self.files = tuple(sorted(files))
        self.hash = _hash(files)

    @classmethod
    def load(cls, folder: Path) -> Policy:
        """Return the policy in `folder`; raise `Refused` when there is no valid one."""
        try:
            return cls(files_in(folder))
        except OSError as error:
            raise _unusable(f"{error.filename} cannot be read: {error.strerror}") from error

    def ask(self, request: Request) -> Decision:
        """Return the policy's answer; anything but an Allow without errors is a deny.

        An answer depends on the request and the files alone, so it is kept for the next time.
        """
        # With the type: True, 1 and 1.0 are equal keys, and not equal to Cedar.
        context = tuple((name, type(value), value) for name, value in request.context.items())
        key = (request.principal, request.role, request.action, request.resource, context)
        answer = self._answers.get(key)
        if answer is None:
            answer = self._evaluate(request)
            if len(self._answers) >= MAX_ANSWERS:
                self._answers.clear()
            self._answers[key] = answer
        return answer

    def _evaluate(self, request: Request) -> Decision:
        import cedarpy  # the extra `server`: a node or client asks nothing

        kind, _, name = request.principal.partition("/")
        if not is_principal(request.principal) or kind not in _TYPES:
            return self._deny(f"{request.principal} cannot ask for anything")
        if kind != "system" and request.role not in Role.__members__:
            return self._deny(f"there is no role {request.role!r}")
        parents = [{"type": "Role", "id": request.role}] if request.role else []
        principal = {"type": _TYPES[kind], "id": name}
        kind_of, resource = request.resource
        try:
            entities = self._roles.with_added_json_str(
                json.dumps([{"uid": principal, "attrs": {}, "parents": parents}]), self._schema
            )
            answer = cedarpy.is_authorized(
                {
                    "principal": principal,
                    "action": {"type": "Action", "id": request.action},
                    "resource": {"type": kind_of, "id": resource},
                    "context": dict(request.context),
                },
                self._slices.get(request.action, self._slices[""]),
                entities,
                self._schema,
            )
        except (ValueError, TypeError) as error:
            return self._deny(str(error))
        diagnostics = answer.diagnostics
        names = diagnostics.id_annotations_by_reason
        return Decision(
            allowed=answer.decision is cedarpy.Decision.Allow and not diagnostics.errors,
            rules=tuple(sorted(names.get(reason, reason) for reason in diagnostics.reasons)),
            policy=self.hash,
            errors=tuple(diagnostics.errors),
        )

    def decide(self, request: Request) -> Decision:
        """Return the Allow.

        Raises:
            Forbidden: The policy denies it; the error names the rule, or says that none allows it.
        """
        decision = self.ask(request)
        if not decision.allowed:
            raise Forbidden(
                f"{request.principal} may not {request.action} on {request.resource[1]}: "
                f"{decision.reason}. Nothing was done.",
                hint=self.hint(decision)
                or f"`angelos policy explain {request.action}` names the rules about it.",
                rules=list(decision.rules),
                policy=self.hash,
            )
        return decision

    def about(self, action: str) -> tuple[Rule, ...]:
        """Return the rules that may decide on an action."""
        return tuple(rule for rule in self.rules if rule.actions is None or action in rule.actions)

    @property
    def actions(self) -> frozenset[str]:
        """The actions that some rule names."""
        return frozenset(action for rule in self.rules for action in rule.actions or ())

    def hint(self, decision: Decision) -> str:
        """Return what the rules of a decision say to do, "" if they say nothing."""
        return next((self._hints[rule] for rule in decision.rules if rule in self._hints), "")

    def _deny(self, reason: str) -> Decision:
        return Decision(allowed=False, rules=(), policy=self.hash, errors=(reason,))


def files_in(folder: Path = POLICY_DIR) -> dict[str, bytes]:
    """Return the files of a policy by name; raise `OSError` when they cannot be read."""
    return {path.name: path.read_bytes() for path in (*folder.glob("*.cedar"), folder / SCHEMA)}


def _slices(text: str, *, grouped: bool) -> dict[str, cedarpy.PolicySet]:
    """Return the policies that can decide on each action; by "" those for an action without any.

    A policy's scope names one action, some, or none; what it does not name it cannot decide on.
    Where the schema groups actions, a name may stand for others: then nothing is left out.
    """
    import cedarpy  # the extra `server`: a node or client asks nothing

    policies = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
    named = {
        name: None if grouped else _actions(policy["action"]) for name, policy in policies.items()
    }
    actions = {"", *(action for names in named.values() for action in names or ())}
    return {
        action: cedarpy.PolicySet.from_json_str(
            json.dumps(
                {
                    "staticPolicies": {
                        name: policy
                        for name, policy in policies.items()
                        if (names := named[name]) is None or action in names
                    },
                    "templates": {},
                    "templateLinks": [],
                }
            )
        )
        for action in actions
    }


def _actions(scope: Mapping[str, Any]) -> frozenset[str] | None:
    """Return the actions that a scope names; None if it may be any."""
    if scope.get("op") == "==":
        entities = [scope["entity"]]
    elif scope.get("op") == "in":
        entities = scope.get("entities") or [scope["entity"]]
    else:
        return None
    return frozenset(entity["id"] for entity in entities)


def _rules(document: Mapping[str, Any], *, grouped: bool) -> tuple[Rule, ...]:
    """Return all rules; refuse templates and policies without an id of their own."""
    import cedarpy  # the extra `server`: a node or client asks nothing

    if document.get("templates"):
        raise _unusable("templates are not used here")
    if not document.get("staticPolicies"):
        raise _unusable("there is no *.cedar file with a policy in it")
    rules: dict[str, Rule] = {}
    for number, policy in document["staticPolicies"].items():
        annotations = policy.get("annotations", {})
        name = annotations.get("id")
        if not name or name in rules:
            raise _unusable(f"{number} has no @id of its own")
        bare = json.dumps({
            "staticPolicies": {"0": policy | {"annotations": {}}},
            "templates": {}, "templateLinks": [],
        })  # fmt: skip
        actions = None if grouped else _actions(policy["action"])
        rules[name] = Rule(
            id=name,
            effect=policy["effect"],
            actions=None if actions is None else tuple(sorted(actions)),
            hint=annotations.get("hint") or "",
            text=cedarpy.policies_from_json_str(bare).strip(),
        )
    return tuple(rules.values())


def _roles() -> list[dict[str, Any]]:
    below: dict[Role, Role | None] = dict.fromkeys(Role)
    below |= dict(zip(_LADDER[1:], _LADDER, strict=False))
    return [
        {
            "uid": {"type": "Role", "id": role.value},
            "attrs": {},
            "parents": [{"type": "Role", "id": lower.value}] if lower else [],
        }
        for role, lower in below.items()
    ]


def _hash(files: Mapping[str, bytes]) -> str:
    """Return the SHA-256 over the names and contents of all files, in order of name."""
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    return total.hexdigest()


def _unusable(reason: str) -> Refused:
    return Refused(
        f"The policy cannot be relied on, so nothing would be allowed: {reason}.",
        hint="Restore the policy files; control does not start without them.",
    )
