"""What of the network a task may reach, as rules; hosts and paths have one spelling only.

A rule opens the paths below one prefix of one host, for some methods, or a host as a whole where
what is said to it cannot be read:

    >>> rule = parse_rule("GET https://Index.Test./simple/")
    >>> str(rule)
    'GET https://index.test/simple/'
    >>> request = WebRequest("https", "index.test", 443, "GET", normal_target("/simple/numpy/"))
    >>> find_rule([rule], request) == rule
    True
    >>> str(parse_rule("tls://mirror.test:8443"))
    'tls://mirror.test:8443'

A host or path that can be spelt twice is refused: dots and slashes that are hidden in escapes,
numbers that are addresses, labels that no domain name has. So what was compared is what is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

import msgspec

from angelos.core.errors import InvalidInput

MAX_RULES = 64
MAX_TARGET = 8_192
_MAX_HOST = 253
_MAX_PORT = 65_535
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_READING = ("GET", "HEAD")
_PORTS = {"https": 443, "http": 80, "tls": 443}
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label by which URL parsers take a host for an IPv4 address (WHATWG URL, 3.5)."""
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_RULE = re.compile(
    r"(?:(?P<methods>[A-Z,]+) )?(?P<scheme>[a-z]+)://(?P<rest>[^ ]+?)(?P<as> as .+)?"
)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_PATH = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
_QUERY = re.compile(r"[!-~]*")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_TWICE = re.compile(r"%25[0-9A-Fa-f]{2}", re.IGNORECASE)
_HIDDEN = re.compile(r"%(?:[01][0-9A-F]|5C|7F)")
"""A backslash, and letters that servers drop or end a path at."""
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")

Scheme = Literal["https", "http", "tls"]
"""`tls`: by domain alone; what is said is not read."""


class NetworkVerdict(StrEnum):
    """What became of a request of a box; the outcome of `network.requested`."""

    allowed = "allowed"
    no_rule = "no-rule"
    """No rule opens this host, method and path."""
    malformed = "malformed"
    """It can be read in two ways, or in none."""
    other_host = "other-host"
    """The name in the TLS handshake or in the Host header is not the one that was asked for."""
    address = "address"
    """The host's name leads to an address that no box may reach."""
    unresolved = "unresolved"
    """The host's name leads nowhere."""
    unreachable = "unreachable"
    """The host does not answer, or its certificate is not its own."""
    limit = "limit"
    """It is larger, longer, or one more than a box may have."""


class NetworkRule(msgspec.Struct, frozen=True):
    """One host that is open, with the methods and the prefix of paths."""

    scheme: Scheme
    host: str
    port: int
    methods: tuple[str, ...] = ()
    """Empty for `tls`."""
    prefix: str = ""
    """Empty for `tls`."""
    credential: str = ""
    """The name of what the node puts into each request; it is never seen in the box."""

    def __str__(self) -> str:
        """Return the text that `parse_rule` reads."""
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        methods = "" if self.methods in ((), _READING) else f"{','.join(self.methods)} "
        own = f" as {self.credential}" if self.credential else ""
        return f"{methods}{self.scheme}://{self.host}{port}{self.prefix}{own}"

    def covers(self, narrower: NetworkRule) -> bool:
        """Return whether this rule opens all that another one does."""
        return (
            (self.scheme, self.host, self.port, self.credential)
            == (narrower.scheme, narrower.host, narrower.port, narrower.credential)
            and set(narrower.methods) <= set(self.methods)
            and (self.scheme == "tls" or _below(narrower.prefix, self.prefix))
        )


class Target(msgspec.Struct, frozen=True):
    """A path in its one spelling, and what follows it."""

    path: str
    """As it is sent: what needs no escape has none."""
    query: str = ""
    """With its question mark, if there is one."""

    @property
    def views(self) -> tuple[str, str]:
        """The path as a server may read it: with escaped slashes as letters, and as slashes."""
        return self.path, self.path.replace("%2F", "/")


class WebRequest(msgspec.Struct, frozen=True):
    """One request of a box, in the spelling that rules have."""

    scheme: Scheme
    host: str
    port: int
    method: str
    target: Target

    @property
    def rule(self) -> NetworkRule:
        """The narrowest rule that would allow it."""
        folder = self.target.path.rpartition("/")[0] + "/"
        return NetworkRule(self.scheme, self.host, self.port, (self.method,), folder)


def parse_rule(text: str) -> NetworkRule:
    """Return the rule that a text says: `[METHODS ]SCHEME://HOST[:PORT][/PREFIX][ as CREDENTIAL]`.

    Methods stand with commas; GET and HEAD where none are named. `tls://HOST` opens a host as a
    whole.

    Raises:
        InvalidInput: It says none.
    """
    match = _RULE.fullmatch(text)
    if match is None or match["scheme"] not in _PORTS:
        raise InvalidInput(
            f"{text[:200]!r} is no rule of the network.",
            hint="Write `https://host/prefix`, `GET,POST https://host/prefix` or `tls://host`.",
        )
    scheme: Scheme = match["scheme"]  # type: ignore[assignment]
    authority, slash, path = match["rest"].partition("/")
    host, port = normal_authority(authority, _PORTS[scheme], unicode=True)
    credential = (match["as"] or "").removeprefix(" as ")
    if credential and (_NAME.fullmatch(credential) is None or scheme != "https"):
        raise InvalidInput(f"{text[:200]!r} names no credential that could be used.")
    if scheme == "tls":
        if slash or match["methods"]:
            raise InvalidInput(f"{text[:200]!r}: tls:// opens a host as a whole.")
        return NetworkRule(scheme, host, port)
    target = normal_target(f"/{path}")
    if target.query or "%2F" in target.path:
        raise InvalidInput(f"{text[:200]!r}: a prefix is a plain path.")
    methods = tuple(sorted(set(match["methods"].split(",")))) if match["methods"] else _READING
    if not set(methods) <= set(_METHODS):
        raise InvalidInput(f"{text[:200]!r}: the methods are {', '.join(_METHODS)}.")
    return NetworkRule(scheme, host, port, methods, target.path, credential)


def parse_rules(texts: Iterable[str]) -> tuple[NetworkRule, ...]:
    """Return the rules of texts, each once.

    Raises:
        InvalidInput: One says none, or they open one host both as a whole and by its paths.
    """
    rules = tuple(dict.fromkeys(parse_rule(text) for text in texts))
    if len(rules) > MAX_RULES:
        raise InvalidInput(f"At most {MAX_RULES} rules of the network.")
    wholes = {(rule.host, rule.port) for rule in rules if rule.scheme == "tls"}
    for rule in rules:
        if rule.scheme != "tls" and (rule.host, rule.port) in wholes:
            raise InvalidInput(f"{rule.host} is opened as a whole and by {rule}; name one of them.")
    return rules


def find_rule(rules: Iterable[NetworkRule], request: WebRequest) -> NetworkRule | None:
    """Return the rule that allows a request; the longest prefix first, None if none does."""
    fitting = [
        rule
        for rule in rules
        if (rule.scheme, rule.host, rule.port) == (request.scheme, request.host, request.port)
        and request.method in rule.methods
        and all(_below(view, rule.prefix) for view in request.target.views)
    ]
    return max(fitting, key=lambda rule: len(rule.prefix), default=None)


def opened(rules: Iterable[NetworkRule], host: str, port: int) -> Scheme | None:
    """Return how a host and port are open to a tunnel (CONNECT); None if they are not.

    >>> opened([parse_rule("https://a.test/x")], "a.test", 443)
    'https'
    >>> opened([parse_rule("https://a.test/x")], "a.test", 22)
    """
    schemes = {rule.scheme for rule in rules if (rule.host, rule.port) == (host, port)}
    return next((scheme for scheme in ("https", "tls") if scheme in schemes), None)


def normal_host(text: str, *, unicode: bool = False) -> str:
    """Return a domain name in its one spelling: lower case, A-labels, no dot at the end.

    Args:
        text: What a rule or a request says.
        unicode: Whether it may hold other letters; requests never do.

    Raises:
        InvalidInput: It is none, or an address in any notation.
    """
    host = text.removesuffix(".").lower()
    try:
        if unicode and not host.isascii():
            import idna  # few rules need it

            host = idna.encode(host, uts46=True, std3_rules=True).decode()
        labels = host.split(".")
        fits = len(host) <= _MAX_HOST and all(map(_LABEL.fullmatch, labels))
        if not fits or _NUMBER.fullmatch(labels[-1]) or not all(map(_one_spelling, labels)):
            raise ValueError  # noqa: TRY301 - one refusal for all
    except (ValueError, UnicodeError) as error:
        raise InvalidInput(
            f"{text[:200]!r} is no domain name.",
            hint="Addresses are not named; an operator can give an address a name.",
        ) from error
    return host


def _one_spelling(label: str) -> bool:
    if not label.startswith("xn--"):
        return True
    import idna  # few requests need it

    return idna.alabel(idna.ulabel(label)).decode() == label


def normal_authority(text: str, port: int, *, unicode: bool = False) -> tuple[str, int]:
    """Return host and port of `host[:port]`, with `port` where none is named.

    Raises:
        InvalidInput: It is neither, or has a user's name.
    """
    host, colon, number = text.partition(":")
    if colon:
        if _PORT.fullmatch(number) is None or int(number) > _MAX_PORT:
            raise InvalidInput(f"{text[:200]!r} is not host:port.")
        port = int(number)
    return normal_host(host, unicode=unicode), port


def normal_target(text: str) -> Target:
    """Return the target of a request (`/path?query`) in its one spelling.

    Raises:
        InvalidInput: It is none, or a server could read it as another: with dots for folders, empty
            folders, escapes of escapes, backslashes, or letters that need an escape or control.
    """
    path, mark, query = text.partition("?")
    spelt = _ESCAPE.sub(_escape, path)
    bad = len(text) > MAX_TARGET or _PATH.fullmatch(path) is None or "#" in query
    if bad or _QUERY.fullmatch(query) is None or _TWICE.search(path):
        raise InvalidInput(f"{text[:200]!r} is no path that can be read in one way only.")
    plain = spelt.replace("%2F", "/").replace("%3B", ";").replace("%20", " ")
    segments = [part.partition(";")[0].strip() for part in plain.split("/")[1:]]
    if _HIDDEN.search(spelt) or "" in segments[:-1] or {".", ".."} & set(segments):
        raise InvalidInput(f"{text[:200]!r} is no path that can be read in one way only.")
    return Target(spelt, mark + query)


def _escape(match: re.Match[str]) -> str:
    letter = chr(int(match[1], 16))
    return letter if _UNRESERVED.fullmatch(letter) else match[0].upper()


def _below(path: str, prefix: str) -> bool:
    """Return whether a path is the prefix itself or lies below it."""
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else f"{prefix}/")
