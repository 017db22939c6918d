"""How a node or agent gets its certificate, keeps it and renews it.

A token is base64url of JSON `{url, ca, secret}`: the address, the only CA to trust there,
and a secret that works once. The directory holds `identity.pem` (key and certificate) and
`enrolled.json`, both 0600.

    identity = await enrol(token, Path("nodes/exec1"))      # or Identity.load(folder)
    async with connect_channel(identity.hub_url, identity.client_context(), ...) as channel:
        ...
    await identity.keep_renewed(clock)                      # for ever, at half life
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import random
import ssl
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from tornado.httpclient import HTTPClientError, HTTPRequest

from angelos.adapters.host.clock import sleep_until
from angelos.adapters.host.datadir import write_private
from angelos.adapters.identity.authority import client_context, key_pem, signing_request
from angelos.adapters.net.dial import caller, problem_of
from angelos.core.api import Enrol, Enrolled, Renew
from angelos.core.errors import AngelError, InvalidInput, NotFound, Unavailable
from angelos.core.ids import PrincipalId
from angelos.core.ports import Clock
from angelos.core.routes import PREFIX

log = logging.getLogger(__name__)
MAX_TOKEN = 16_384
_MAX_ANSWER = 262_144
_RETRY_S = 60.0
_PAUSE_S = 3_600.0


class Token(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of a single-use enrolment token."""

    url: str
    ca: str
    secret: str


def encode_token(token: Token) -> str:
    """Return a token as one word."""
    return base64.urlsafe_b64encode(msgspec.json.encode(token)).decode()


def decode_token(text: str) -> Token:
    """Return the content of a token; raise `InvalidInput`."""
    text = text.strip()
    if len(text) > MAX_TOKEN:
        raise InvalidInput("The enrolment token is too long to be one.")
    try:
        body = base64.b64decode(text, altchars=b"-_", validate=True)
        token = msgspec.json.decode(body, type=Token)
    except (binascii.Error, msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"The enrolment token cannot be read: {error}",
            hint="Copy it whole, or ask for a new one.",
        ) from error
    if not token.url.startswith("https://"):
        raise InvalidInput("The enrolment token names no https address.")
    return token


class Identity:
    """A node's or agent's certificate with its key, and the TLS context to connect with.

    Made by `load` or `enrol`.
    """

    def __init__(self, directory: Path, enrolled: Enrolled) -> None:
        self.directory = directory
        self.enrolled = enrolled
        self._life = _life_of(enrolled)
        self._context = client_context(enrolled.ca, directory / "identity.pem")

    @classmethod
    def load(cls, directory: Path) -> Identity:
        """Return the identity kept in `directory`; raise `NotFound` or `InvalidInput`."""
        path = directory / "enrolled.json"
        try:
            enrolled = msgspec.json.decode(path.read_bytes(), type=Enrolled)
            return cls(directory, enrolled)
        except FileNotFoundError as error:
            raise NotFound(
                f"{directory} holds no identity.",
                hint="Join with a token first: `angelos node join` or `angelos agent join`.",
            ) from error
        except (ValueError, ssl.SSLError) as error:  # not JSON, or without a certificate
            raise InvalidInput(f"The identity in {directory} is damaged: {error}") from error

    def client_context(self) -> ssl.SSLContext:
        """Return the one context to connect with; it is renewed in place."""
        return self._context

    @property
    def id(self) -> PrincipalId:
        """The principal of the certificate."""
        return self.enrolled.id

    @property
    def hub_url(self) -> str:
        """Where the hub listens, `https://host:port`."""
        return self.enrolled.hub_url

    @property
    def not_after(self) -> float:
        """When the certificate ends, in Unix seconds."""
        return self._life[1]

    @property
    def renew_at(self) -> float:
        """Half of the certificate's life, in Unix seconds."""
        return sum(self._life) / 2

    async def renew(self) -> None:
        """Get a certificate for a new key; new connections of the live context use it."""
        key = ec.generate_private_key(ec.SECP256R1())
        body = Renew(csr=signing_request(key))
        enrolled = await _post(f"{self.hub_url}{PREFIX}/renew", body, self._context)
        if enrolled.id != self.id or enrolled.ca != self.enrolled.ca:
            raise InvalidInput("The hub answered with another principal's certificate.")
        # The address that works here, whatever name the hub has for others.
        enrolled = msgspec.structs.replace(enrolled, hub_url=self.hub_url)
        _store(self.directory, key, enrolled)
        self._context.load_cert_chain(self.directory / "identity.pem")
        self.enrolled, self._life = enrolled, _life_of(enrolled)

    async def keep_renewed(self, clock: Clock) -> None:
        """Renew at half life, for ever; a failure is logged and retried."""
        while True:
            await sleep_until(self.renew_at + random.uniform(0, 1), clock)  # noqa: S311 - no secret
            try:
                await self.renew()
            except (AngelError, OSError) as error:
                log.warning("The certificate of %s was not renewed: %s", self.id, error)
                await asyncio.sleep(_RETRY_S)
            else:
                # By a clock that is far ahead of the hub's, the new one is past its half as well.
                await asyncio.sleep(_PAUSE_S)


def _life_of(enrolled: Enrolled) -> tuple[float, float]:
    """Return when a certificate begins and ends, in Unix seconds; raise `ValueError`."""
    certificate = x509.load_pem_x509_certificate(enrolled.certificate.encode())
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begin.timestamp(), end.timestamp()


async def enrol(token: str, directory: Path, *, enrol_url: str = "", hub_url: str = "") -> Identity:
    """Turn a token into an identity in `directory`.

    The private key is created here and never leaves. Only the CA in the token is trusted.

    Args:
        token: the single-use token.
        directory: where key and certificate are kept.
        enrol_url: where to enrol instead of the token's address.
        hub_url: where to connect afterwards instead of the address that the hub names.

    Raises:
        InvalidInput: the token is invalid, or `directory` cannot be written.
        Unauthenticated: the hub refuses the token; each works once.
        Unavailable: the hub does not answer.
    """
    parts = decode_token(token)
    _prepare(directory)
    key = ec.generate_private_key(ec.SECP256R1())
    body = Enrol(secret=parts.secret, csr=signing_request(key))
    url = enrol_url or parts.url
    enrolled = await _post(f"{url}{PREFIX}/enrol", body, client_context(parts.ca))
    if enrolled.ca.strip() != parts.ca.strip():
        raise InvalidInput("The hub answered with another CA than the token's.")
    if hub_url:
        enrolled = msgspec.structs.replace(enrolled, hub_url=hub_url)
    _store(directory, key, enrolled)
    return Identity(directory, enrolled)


def _prepare(directory: Path) -> None:
    """Create the directory and try to write there, before the token is used."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        raise InvalidInput(
            f"{directory} cannot be created or written: {error.strerror}.",
            hint="The token was not used; use it with another directory.",
        ) from error


def _store(directory: Path, key: ec.EllipticCurvePrivateKey, enrolled: Enrolled) -> None:
    # Key and certificate in one file: a crash leaves the old pair or the new one.
    write_private(directory / "identity.pem", key_pem(key) + enrolled.certificate.encode())
    write_private(directory / "enrolled.json", msgspec.json.encode(enrolled))


async def _post(url: str, body: Any, context: ssl.SSLContext) -> Enrolled:
    request = HTTPRequest(
        url,
        method="POST",
        body=msgspec.json.encode(body),
        ssl_options=context,
        headers={"Content-Type": "application/json"},
        follow_redirects=False,
        connect_timeout=10,
        request_timeout=30,
    )
    try:
        async with caller(_MAX_ANSWER) as http:
            answer = await http.fetch(request)
        return msgspec.json.decode(answer.body, type=Enrolled)
    except HTTPClientError as error:
        raise problem_of(error) from error
    except (OSError, ssl.SSLError) as error:
        raise Unavailable(f"{url} cannot be reached: {error}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unavailable(f"{url} does not answer like a hub: {error}") from error
