"""Rules of the network: one spelling of hosts and paths, and nothing beyond a rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angelos.core.errors import InvalidInput
from angelos.core.network import (
    NetworkRule,
    WebRequest,
    find_rule,
    normal_authority,
    normal_host,
    normal_target,
    opened,
    parse_rule,
    parse_rules,
)

SEGMENT = st.text("abcXYZ019-._~%/;\\:@!$&'()*+,=2EeFf5c0", max_size=8)
LABEL = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True).filter(
    lambda label: not label.startswith("xn--")
)
HOST = st.lists(LABEL, min_size=1, max_size=4).map(".".join)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("https://Index.Test./simple/", "https://index.test/simple/"),
        ("GET,HEAD https://a.test:443", "https://a.test/"),
        ("POST,GET https://a.test/%61b", "GET,POST https://a.test/ab"),
        ("http://a.test:8080/x", "http://a.test:8080/x"),
        ("tls://a.test", "tls://a.test"),
        ("https://bücher.test/", "https://xn--bcher-kva.test/"),
        ("https://a.test/v1/ as api-key", "https://a.test/v1/ as api-key"),
    ],
)
def test_a_rule_is_read_and_written_in_one_form(text: str, canonical: str) -> None:
    rule = parse_rule(text)
    assert str(rule) == canonical
    assert parse_rule(canonical) == rule


@pytest.mark.parametrize(
    "text",
    [
        "", "a.test", "ftp://a.test/", "https://", "https://a.test/../b", "https://a.test/a%2Fb",
        "https://user@a.test/", "https://127.0.0.1/", "https://[::1]/", "https://2130706433/",
        "https://0x7f.1/", "https://a.test:0/", "https://a.test:65536/", "https://a.test:0443/",
        "get https://a.test/", "TRACE https://a.test/", "GET tls://a.test", "tls://a.test/x",
        "tls://a.test as key", "http://a.test/ as key", "https://a.test/ as ../key",
        "https://a_b.test/", "https://-a.test/", "https://a..test/", "https://a.test/?q",
        "https://xn--a.test/", "https://a.test/ https://b.test/", "https://*.test/",
    ],
)  # fmt: skip
def test_what_says_no_rule_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_rule(text)


def test_a_host_is_opened_as_a_whole_or_by_paths() -> None:
    with pytest.raises(InvalidInput, match="as a whole"):
        parse_rules(["tls://a.test", "https://a.test/x/"])
    assert len(parse_rules(["tls://a.test", "https://a.test:8443/x/"])) == 2
    with pytest.raises(InvalidInput, match="At most"):
        parse_rules(f"tls://a{number}.test" for number in range(65))


@pytest.mark.parametrize(
    "target",
    [
        "/a/../b", "/a/%2e%2e/b", "/a/.%2E/b", "/a/./b", "/%2e/", "//a", "/a//b", "/a/..;/b",
        "/a/..;x=1/b", "/a%2f..%2fb", "/a/%252e%252e/b", "/a%5Cb", "/a\\b", "/a%00", "/a%0d%0aX",
        "/a b", "/ä", "a", "", "*", "/a#b", "/a?b#c", "/a?b c", "/%", "/%4", "/%zz",
        "http://a.test/", "/" + "a" * 9_000, "/a/..%3B/b", "/a/..%3bx/b", "/a/..%20/b",
        "/a/%09../b", "/a/.%7f./b", "/a/%20/b", "/a/%1F",
    ],
)  # fmt: skip
def test_a_path_that_can_be_read_twice_is_refused(target: str) -> None:
    with pytest.raises(InvalidInput):
        normal_target(target)


@given(st.lists(SEGMENT, max_size=5).map(lambda parts: "/" + "/".join(parts)))
def test_what_passes_has_one_spelling_and_leads_nowhere_else(text: str) -> None:
    try:
        target = normal_target(text)
    except InvalidInput:
        return
    assert normal_target(target.path + target.query) == target
    for view in target.views:
        assert not {".", "..", ""} & {s.partition(";")[0] for s in view.split("/")[1:-1]}
        assert "\\" not in view
        assert "%2e" not in view.lower()


@given(st.lists(SEGMENT, max_size=4).map("/".join), st.lists(SEGMENT, max_size=3).map("/".join))
def test_no_path_below_a_prefix_leaves_it(inside: str, text: str) -> None:
    rule = NetworkRule("https", "a.test", 443, ("GET",), "/open/")
    try:
        target = normal_target(f"/{inside}/{text}")
    except InvalidInput:
        return
    request = WebRequest("https", "a.test", 443, "GET", target)
    if find_rule([rule], request) is not None:
        from urllib.parse import unquote, urljoin

        resolved = urljoin("https://a.test", unquote(target.path))
        assert resolved.startswith("https://a.test/open/")


@given(HOST)
def test_a_host_is_the_same_in_every_case_and_with_a_dot(host: str) -> None:
    assert normal_host(host.upper()) == normal_host(host + ".") == host


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "017700000001", "0177.0.0.1", "[::1]",
     "::ffff:127.0.0.1", "a.test..", "", ".", "a" * 64 + ".test", "bücher.test", "a.0x", "a.1",
     "xn--bcher-kva1.xn--", "XN--A.test", "a\x00.test", "a.test\n"],
)  # fmt: skip
def test_a_request_names_no_address_and_no_other_letters(host: str) -> None:
    with pytest.raises(InvalidInput):
        normal_host(host)


def test_ports_have_one_spelling() -> None:
    assert normal_authority("a.test", 443) == ("a.test", 443)
    assert normal_authority("A.test.:8443", 443) == ("a.test", 8443)
    for text in ("a.test:", "a.test:0", "a.test:+1", "a.test:1_0", "a.test:٣", "a.test:99999"):
        with pytest.raises(InvalidInput):
            normal_authority(text, 443)


def test_a_rule_allows_its_methods_below_its_prefix_and_no_more() -> None:
    rules = parse_rules(["https://a.test/simple", "POST https://a.test/simple/up/"])

    def allowed(method: str, path: str, **changes: object) -> bool:
        fields = {"scheme": "https", "host": "a.test", "port": 443} | changes
        request = WebRequest(method=method, target=normal_target(path), **fields)  # type: ignore[arg-type]
        return find_rule(rules, request) is not None

    assert allowed("GET", "/simple")
    assert allowed("HEAD", "/simple/numpy/?format=json")
    assert allowed("POST", "/simple/up/x")
    assert not allowed("POST", "/simple/x")
    assert not allowed("DELETE", "/simple/up/x")
    assert not allowed("get", "/simple")
    assert not allowed("GET", "/simpleton")
    assert not allowed("GET", "/Simple")
    assert not allowed("GET", "/")
    assert not allowed("GET", "/simple%2Fx")
    assert not allowed("GET", "/simple/x", scheme="http")
    assert not allowed("GET", "/simple/x", host="b.test")
    assert not allowed("GET", "/simple/x", port=8443)


def test_an_escaped_slash_is_a_letter_and_a_slash() -> None:
    rules = parse_rules(["https://a.test/"])
    target = normal_target("/@types%2fnode")
    assert target.path == "/@types%2Fnode"
    assert find_rule(rules, WebRequest("https", "a.test", 443, "GET", target)) is not None


def test_a_tunnel_is_open_by_host_and_port() -> None:
    rules = parse_rules(["https://a.test/x/", "tls://b.test:8443", "http://c.test/"])
    assert opened(rules, "a.test", 443) == "https"
    assert opened(rules, "b.test", 8443) == "tls"
    for host, port in (("a.test", 22), ("b.test", 443), ("c.test", 80), ("c.test", 443)):
        assert opened(rules, host, port) is None


def test_a_narrower_rule_is_covered() -> None:
    wide = parse_rule("GET,POST https://a.test/v1/")
    assert wide.covers(parse_rule("POST https://a.test/v1/x/"))
    for text in (
        "https://a.test/v1/",  # HEAD
        "GET https://a.test/",
        "GET https://b.test/v1/",
        "GET http://a.test/v1/",
        "GET https://a.test/v1/ as key",
        "tls://a.test",
    ):
        assert not wide.covers(parse_rule(text)), text
    assert parse_rule("tls://a.test").covers(parse_rule("tls://a.test"))
    assert not parse_rule("tls://a.test").covers(parse_rule("https://a.test/"))
