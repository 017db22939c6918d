"""Envelopes: bounds of the header, and how long a retry waits."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from angelos.core.envelopes import (
    MAX_BODY_BYTES,
    EnvelopeHeader,
    Lane,
    RetryPolicy,
    RoutedEnvelope,
    check_envelope,
    retry_delay_s,
)
from angelos.core.errors import InvalidInput
from angelos.core.frames import MAX_ITEM_BYTES
from angelos.core.ids import PrincipalId

HEADER = EnvelopeHeader(
    id="i" * 64, source=PrincipalId("agent/ada"), destination=PrincipalId("node/exec1"),
    lane=Lane.message, sequence=2**53 - 1, codec="c" * 32, deadline=4e9, trace="t" * 128,
)  # fmt: skip


def test_the_largest_envelope_fits_into_a_frame():
    check_envelope(RoutedEnvelope(HEADER, b""))
    header = len(msgspec.msgpack.encode(HEADER))
    assert header + MAX_BODY_BYTES < MAX_ITEM_BYTES


@given(st.builds(lambda **fields: msgspec.structs.replace(HEADER, **fields),
    id=st.text(max_size=70), codec=st.text(max_size=40), sequence=st.integers(),
    deadline=st.one_of(st.none(), st.floats()), trace=st.text(max_size=140),
))  # fmt: skip
def test_a_header_is_taken_or_refused_by_field_and_never_anything_else(header):
    try:
        check_envelope(RoutedEnvelope(header, b""))
    except InvalidInput as error:
        assert error.extra["field"] in header.__struct_fields__  # noqa: PT017
    else:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(header), type=EnvelopeHeader) == header


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_retry_waits_ever_longer_and_not_for_ever(nacks, jitter):
    policy = RetryPolicy()
    delay = retry_delay_s(policy, nacks, jitter)
    assert policy.first_s / 2 <= delay <= policy.most_s * 1.5
    assert retry_delay_s(policy, nacks + 1, jitter) >= delay * 0.999


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        (RetryPolicy(first_s=1, factor=3, most_s=10), [1, 3, 9, 10, 10]),
        (RetryPolicy(first_s=5, factor=2, most_s=5), [5, 5, 5]),
        (RetryPolicy(first_s=5, factor=1, most_s=50), [5, 5, 5]),
        (RetryPolicy(first_s=4, factor=1.5, most_s=9), [4, 6, 9, 9]),
    ],
)
def test_delays_follow_the_policy(policy, delays):
    got = [retry_delay_s(policy, nacks + 1, 0.5) for nacks in range(len(delays))]
    assert got == pytest.approx(delays)
