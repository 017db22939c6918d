"""A grant: control's signed permission to carry one exact payload out, once, where and when.

Control decides once; the node that carries the payload out verifies the signature instead of
asking again. Change one byte of the payload and the grant no longer fits.

    >>> key = SigningKey.generate()
    >>> grant = Grant(id=GrantId("grant-1"), who=PrincipalId("agent/ada"), what=digest(b"payload"),
    ...     where=PrincipalId("node/exec1"), policy="sha", rule="run", not_after=100.0)
    >>> signed = sign_grant(key, grant)
    >>> check_grant(key.public, signed, b"payload", PrincipalId("node/exec1"), now=99.0).who
    'agent/ada'
"""

from __future__ import annotations

import hashlib

import msgspec

from angelos.core.errors import Forbidden
from angelos.core.ids import GrantId, PrincipalId
from angelos.core.signing import SigningKey, VerifyKey

_CONTEXT = b"angelos.grant.v1"
MAX_LAG_S = 300.0
"""Seconds by which a node's clock may be behind control's."""


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """Who may have what done where, until when, and by which rule."""

    id: GrantId
    who: PrincipalId
    what: str
    """SHA-256 of the payload's bytes, hex."""
    where: PrincipalId
    policy: str
    """SHA-256 of the policy set that allowed it, hex."""
    rule: str
    """Names of the rules that allowed it, comma separated."""
    not_after: float
    """Unix seconds."""
    not_before: float = 0.0
    """Unix seconds at which it was made."""


class SignedGrant(msgspec.Struct, frozen=True, kw_only=True):
    """The grant's exact bytes (MessagePack) and control's signature of them."""

    body: bytes
    signature: bytes


def digest(payload: bytes) -> str:
    """Return the SHA-256 of `payload` in hex."""
    return hashlib.sha256(payload).hexdigest()


def sign_grant(key: SigningKey, grant: Grant) -> SignedGrant:
    """Return `grant` signed with control's key."""
    body = msgspec.msgpack.encode(grant)
    return SignedGrant(body=body, signature=key.sign(_CONTEXT, body))


def read_grant(signed: SignedGrant) -> Grant:
    """Return the grant without checking it; raise `Forbidden` if it is not one."""
    try:
        return msgspec.msgpack.decode(signed.body, type=Grant)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Forbidden(f"The grant cannot be read: {error}") from error


def check_grant(
    key: VerifyKey, signed: SignedGrant, payload: bytes, where: PrincipalId, now: float
) -> Grant:
    """Return the grant if it allows this payload here and now; raise `Forbidden` otherwise."""
    if not key.verify(_CONTEXT, signed.body, signed.signature):
        raise Forbidden("The grant's signature is not control's.")
    grant = read_grant(signed)
    if grant.what != digest(payload):
        raise Forbidden(f"Grant {grant.id} was made for another payload.")
    if grant.where != where:
        raise Forbidden(f"Grant {grant.id} is for {grant.where}, not for {where}.")
    if not now <= grant.not_after:
        raise Forbidden(
            f"Grant {grant.id} expired {now - grant.not_after:.0f} s ago by the clock of {where}."
        )
    # A clock that lags lets an expired grant pass for as long as it lags, so bound the lag.
    if not grant.not_before <= now + MAX_LAG_S:
        raise Forbidden(
            f"Grant {grant.id} was made {grant.not_before - now:.0f} s in the future by the clock "
            f"of {where}.",
            hint="Set the clock of that machine.",
        )
    return grant
