"""What a box says for a second time is refused, and a credential is seen in what comes back."""

from __future__ import annotations

import h11
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from angelos.core.network import NetworkVerdict
from angelos.node.broker.heads import check_readable, read_request
from angelos.node.broker.models import BrokerLimits, Credential, RequestRefused
from angelos.node.broker.redact import Redactor


@pytest.mark.parametrize(
    "name", ["X-Original-URL", "X-Rewrite-Url", "x-http-method-override", "X_HTTP_Method", "X-Host"]
)
def test_no_header_says_another_method_path_or_host(name: str) -> None:
    request = h11.Request(method="GET", target="/a", headers=[("Host", "a.test"), (name, "/b")])
    with pytest.raises(RequestRefused) as refusal:
        read_request(request, ("https", "a.test", 443), BrokerLimits())
    assert refusal.value.verdict is NetworkVerdict.malformed


@pytest.mark.parametrize(
    ("status", "headers"),
    [(200, [("Content-Encoding", "gzip")]), (206, [("Content-Range", "bytes 0-3/9")])],
)
def test_an_answer_in_which_an_echo_cannot_be_seen_is_refused(
    status: int, headers: list[tuple[str, str]]
) -> None:
    with pytest.raises(RequestRefused):
        check_readable(h11.Response(status_code=status, headers=headers))
    check_readable(h11.Response(status_code=200, headers=[("Content-Encoding", "identity")]))


@pytest.mark.parametrize(
    ("value", "echo"),
    [
        (b"Bearer 0123456789abcdef", b'{"token": "0123456789abcdef"}'),
        (b"Basic YWRhOmxvdmVsYWNl", b"user ada, password lovelace"),
        (b"Basic YWRhOmxvdmVsYWNl", b"ada:lovelace YWRhOmxvdmVsYWNl"),
        (b"token a/b=c+d/e", b"?token=a%2Fb%3Dc%2Bd%2Fe"),
    ],
)
@given(cut=st.integers(0, 40))
def test_the_secret_of_a_credential_does_not_come_back_alone(
    value: bytes, echo: bytes, cut: int
) -> None:
    redactor = Redactor(value)
    text = redactor.take(echo[:cut]) + redactor.take(echo[cut:]) + redactor.rest()
    assert len(text) == len(echo)
    for secret in (b"0123456789abcdef", b"lovelace", b"YWRhOmxvdmVsYWNl", b"a%2Fb%3Dc"):
        assert secret not in text


@pytest.mark.parametrize("value", ["Bearer abc\n", "Bearer abc ", " Bearer abc"])
def test_a_credential_that_cannot_be_sent_is_no_credential(value: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": "a", "host": "a.test", "value": value}, Credential)
