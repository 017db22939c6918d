"""Addresses and names: what no box is led to."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from angelos.core.errors import InvalidInput
from angelos.core.network import NetworkVerdict
from angelos.node.broker.addresses import public
from angelos.node.broker.models import RequestRefused
from angelos.node.broker.redact import Redactor
from angelos.node.broker.resolver import HostResolver, Place


@pytest.mark.parametrize("address", ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "2a00:1450::1"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert public(address)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "172.31.0.1", "192.168.1.1",
     "169.254.169.254", "100.100.100.200", "192.0.0.192", "168.63.129.16", "198.18.0.1",
     "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fd00:ec2::254",
     "ff02::1", "::ffff:127.0.0.1", "::ffff:93.184.216.34", "::7f00:1", "64:ff9b::7f00:1",
     "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "2606::1%lo",
     "2130706433", "0x7f.1", "localhost", ""],
)  # fmt: skip
def test_private_local_and_embedding_addresses_are_not(address: str) -> None:
    assert not public(address)


def answering(*answers: Sequence[str]) -> HostResolver:
    rest = list(answers)

    async def lookup(host: str) -> Sequence[str]:
        assert host == "a.test"
        return rest.pop(0)

    return HostResolver({"index.test:443": "127.0.0.1:8443", "db.test": "10.0.0.5"}, lookup)


async def test_a_listed_host_leads_where_the_operator_says() -> None:
    resolver = answering()
    assert await resolver.places("index.test", 443) == (Place("127.0.0.1", 8443),)
    assert await resolver.places("db.test", 5432) == (Place("10.0.0.5", 5432),)
    resolver.close()


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (["127.0.0.1"], NetworkVerdict.address),
        (["93.184.216.34", "10.0.0.1"], NetworkVerdict.address),
        (["::ffff:169.254.169.254"], NetworkVerdict.address),
        ([], NetworkVerdict.unresolved),
    ],
)
async def test_a_name_that_leads_inside_is_refused_as_a_whole(
    answer: list[str], verdict: NetworkVerdict
) -> None:
    resolver = answering(answer)
    with pytest.raises(RequestRefused) as refused:
        await resolver.places("a.test", 443)
    assert refused.value.verdict is verdict
    resolver.close()


async def test_each_answer_is_looked_at_anew() -> None:
    resolver = answering(["93.184.216.34"], ["127.0.0.1"])
    assert await resolver.places("a.test", 443) == (Place("93.184.216.34", 443),)
    with pytest.raises(RequestRefused):
        await resolver.places("a.test", 443)
    resolver.close()


@pytest.mark.parametrize(
    ("name", "place"),
    [("a.test", "b.test"), ("a.test:x", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"),
     ("a.test", "127.0.0.1:"), ("a.test", "127.0.0.1:99999"), ("", "127.0.0.1")],
)  # fmt: skip
def test_an_entry_that_lists_no_host_is_refused(name: str, place: str) -> None:
    with pytest.raises(InvalidInput):
        HostResolver({name: place})


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_a_credential_is_taken_out_however_it_is_cut(size: int) -> None:
    text = b"xx secret-12 yy secret-1secret-12"
    redactor = Redactor(b"secret-12")
    pieces = [redactor.take(text[i : i + size]) for i in range(0, len(text), size)]
    assert b"".join([*pieces, redactor.rest()]) == b"xx ********* yy secret-1*********"
