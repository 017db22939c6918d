"""Decides which rules of the network a task gets: the policy is asked for each method of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from angelos.core.errors import Forbidden
from angelos.core.network import NetworkRule
from angelos.core.permissions import Principal
from angelos.core.policy.engine import Decision, Policy, Request


def decide_network(
    policy: Policy,
    principal: Principal,
    rules: Sequence[NetworkRule],
    listed: Sequence[NetworkRule],
    decision: Decision,
) -> Decision:
    """Return the decision on a run together with those on what it may reach.

    Args:
        policy: Decides.
        principal: Who wants it.
        rules: What is wanted.
        listed: What the operator of the system has listed.
        decision: The Allow of the run itself.

    Raises:
        Forbidden: The policy denies a rule; the error names it, and how it could be allowed.
    """
    names = set(decision.rules)
    for rule in rules:
        for narrow in _single(rule):
            answer = policy.ask(_question(principal, narrow, listed))
            if not answer.allowed:
                raise Forbidden(
                    f"{principal.id} may not reach {narrow}: {answer.reason}. Nothing was done.",
                    hint=policy.hint(answer)
                    or f'An operator opens it by `allow = ["{rule}"]` below [network] in the '
                    "angelos.toml of the system's data directory.",
                    rules=list(answer.rules),
                    policy=policy.hash,
                    network=[str(rule)],
                )
            names |= set(answer.rules)
    return msgspec.structs.replace(decision, rules=tuple(sorted(names)))


def allowed_network(
    policy: Policy, principal: Principal, listed: Sequence[NetworkRule]
) -> tuple[NetworkRule, ...]:
    """Return what of the operator's list somebody may reach, in a kernel of theirs.

    A host that is listed as a whole and by paths is opened by its paths.
    """
    rules = [
        rule
        for rule in listed
        if all(policy.ask(_question(principal, one, listed)).allowed for one in _single(rule))
    ]
    narrow = {(rule.host, rule.port) for rule in rules if rule.scheme != "tls"}
    return tuple(
        rule for rule in rules if rule.scheme != "tls" or (rule.host, rule.port) not in narrow
    )


def _single(rule: NetworkRule) -> Iterator[NetworkRule]:
    """Yield a rule for each of its methods."""
    for method in rule.methods:
        yield msgspec.structs.replace(rule, methods=(method,))
    if not rule.methods:
        yield rule


def _question(principal: Principal, rule: NetworkRule, listed: Sequence[NetworkRule]) -> Request:
    return Request(
        principal=principal.id,
        role=principal.role,
        action="connect",
        resource=("Host", rule.host),
        context={
            "scheme": rule.scheme,
            "port": rule.port,
            "method": "".join(rule.methods),
            "path": rule.prefix,
            "credential": rule.credential,
            "listed": any(entry.covers(rule) for entry in listed),
        },
    )
