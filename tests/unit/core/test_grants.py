"""A grant allows one exact payload, in one place, until it expires."""

import msgspec
import pytest

from angelos.core import grants
from angelos.core.errors import Forbidden
from angelos.core.ids import GrantId, PrincipalId
from angelos.core.signing import SigningKey

KEY = SigningKey.generate()
HERE = PrincipalId("node/exec1")
PAYLOAD = b"the exact payload"


def granted(**changes: object) -> grants.SignedGrant:
    grant = grants.Grant(
        id=GrantId("grant-1"), who=PrincipalId("agent/ada"), what=grants.digest(PAYLOAD),
        where=HERE, policy="p", rule="r", not_after=100.0,
    )  # fmt: skip
    return grants.sign_grant(KEY, msgspec.structs.replace(grant, **changes))


def check(signed: grants.SignedGrant, payload: bytes = PAYLOAD, now: float = 50.0) -> grants.Grant:
    return grants.check_grant(KEY.public, signed, payload, HERE, now)


def test_it_fits() -> None:
    assert check(granted()).who == "agent/ada"


@pytest.mark.parametrize(
    ("signed", "payload", "now"),
    [
        (granted(), PAYLOAD + b" ", 50.0),
        (granted(where=PrincipalId("node/other")), PAYLOAD, 50.0),
        (granted(), PAYLOAD, 100.1),
        (granted(), PAYLOAD, float("nan")),
        (granted(not_after=float("nan")), PAYLOAD, 50.0),
        (granted(not_before=50.1 + grants.MAX_LAG_S), PAYLOAD, 50.0),
        (granted(not_before=float("nan")), PAYLOAD, 50.0),
        (grants.sign_grant(SigningKey.generate(), grants.read_grant(granted())), PAYLOAD, 50.0),
        (grants.SignedGrant(body=b"", signature=b""), PAYLOAD, 50.0),
        (grants.SignedGrant(body=b"junk", signature=KEY.sign(b"angelos.grant.v1", b"junk")),
         PAYLOAD, 50.0),
    ],
)  # fmt: skip
def test_it_does_not_fit(signed: grants.SignedGrant, payload: bytes, now: float) -> None:
    with pytest.raises(Forbidden):
        check(signed, payload, now)


def test_a_clock_may_lag_a_little_and_a_refusal_says_whose() -> None:
    late = granted(not_after=1e9, not_before=1_000.0)
    assert check(late, now=1_000.0 - grants.MAX_LAG_S).who == "agent/ada"
    with pytest.raises(Forbidden, match=f"900 s in the future by the clock of {HERE}"):
        check(late, now=100.0)
    with pytest.raises(Forbidden, match=f"expired 20 s ago by the clock of {HERE}"):
        check(granted(), now=120.0)


def test_a_signature_of_something_else_is_none_of_a_grant() -> None:
    body = granted().body
    signed = grants.SignedGrant(body=body, signature=KEY.sign(b"angelos.commit.v1", body))
    with pytest.raises(Forbidden):
        check(signed)


def test_every_changed_byte_is_seen() -> None:
    signed = granted()
    for index in range(len(signed.body)):
        body = bytearray(signed.body)
        body[index] ^= 1
        with pytest.raises(Forbidden):
            check(msgspec.structs.replace(signed, body=bytes(body)))


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x81\xa1x" + b"\x91" * 100_000 + b"\x01"])
def test_what_is_no_grant_is_refused_however_deep(body: bytes) -> None:
    with pytest.raises(Forbidden, match="cannot be read"):
        grants.read_grant(grants.SignedGrant(body=body, signature=b""))
