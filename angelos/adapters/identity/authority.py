"""The certificate authority: a P-256 CA in the data directory, 24-hour certificates, TLS contexts.

One URI in its certificate names a node or agent, `spiffe://angelos/<kind>/<name>` (SPIFFE
X.509-SVID, section 2), and nothing else does. Only the public key of a signing request is used.

    pki = Pki.open(data_dir / "keys", SystemClock())
    issued = pki.issue(csr_pem, PrincipalId("node/exec1"))
    server = HTTPServer(app, ssl_options=pki.server_context())     # TLS 1.3, certificate required
    peer, serial = identity_of(stream.socket.getpeercert(binary_form=True))
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from angelos.adapters.host.datadir import write_private
from angelos.core.errors import InvalidInput, Tampered, Unauthenticated
from angelos.core.ids import PrincipalId, is_principal
from angelos.core.ports import Clock

LIFETIME_S = 24 * 3600
_CA_LIFETIME_S = 10 * 365 * 24 * 3600
HUB_LIFETIME_S = 30 * 24 * 3600
"""Of the hub's own certificate: renewed twice a day, and still valid after a long suspend."""
_SKEW_S = 2 * 3600
"""A clock may be this far behind: that of a peer, or ours after it was set back."""
_CA_SKEW_S = 24 * 3600
_DOMAIN = "spiffe://angelos/"
_PEER = re.compile(r"^spiffe://angelos/((?:node|agent)/[^/]+)$")


@dataclass(frozen=True)
class Issued:
    """A certificate that was just issued."""

    certificate: str
    serial: str
    """Hex, as in `Principal.serial`."""
    not_after: float
    """Unix seconds."""


class Pki:
    """The certificate authority and the hub's own certificates; see `open`."""

    def __init__(self, directory: Path, clock: Clock, names: Sequence[str] = ()) -> None:
        self.clock = clock
        self._names = tuple(dict.fromkeys(("localhost", "127.0.0.1", *names)))
        self._server_file = directory / "hub.pem"
        path = directory / "ca.pem"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            write_private(path, _make_ca(clock.time()))
        if path.stat().st_mode & 0o077:
            raise Tampered(f"Other users may read {path}.", hint=f"chmod 600 {path}")
        body = path.read_bytes()
        try:
            key = serialization.load_pem_private_key(body, None)
            self._ca = x509.load_pem_x509_certificate(body)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise Tampered(f"{path} is not a key and a certificate: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise Tampered(f"{path} holds a key of another kind.")
        self._key = key
        self.ca_not_after = self._ca.not_valid_after_utc.timestamp()
        self.server_not_after = 0.0
        """Unix seconds at which the hub's present certificate ends."""
        self.ca_pem = self._ca.public_bytes(serialization.Encoding.PEM).decode()
        self.renew_server()

    @classmethod
    def open(cls, directory: Path, clock: Clock, names: Sequence[str] = ()) -> Pki:
        """Load or create the CA in `directory` (files 0600) and issue the hub's certificate.

        Args:
            directory: where keys are kept.
            clock: time for certificates.
            names: host names and addresses of the hub besides localhost and 127.0.0.1.

        Raises:
            Tampered: the CA's file is damaged, or other users may read it.
        """
        return cls(directory, clock, names)

    def issue(self, csr_pem: str, owner: PrincipalId) -> Issued:
        """Certify for 24 hours that `owner` holds the public key in `csr_pem`.

        The request's signature proves possession of the key; everything else in it is ignored, so
        a peer cannot ask for another name or for more rights.

        Raises:
            InvalidInput: the request is invalid, or `owner` is no node or agent.
        """
        if not is_principal(owner) or not _PEER.match(_DOMAIN + owner):
            raise InvalidInput(f"{owner} cannot have a certificate.")
        try:
            csr = x509.load_pem_x509_csr(csr_pem.encode())
            key = csr.public_key()
            proven = csr.is_signature_valid
        except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
            raise InvalidInput(f"The signing request cannot be read: {error}") from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
            raise InvalidInput("The key must be on the curve P-256.")
        if not proven:
            raise InvalidInput("The signing request is not signed with its own key.")
        name = x509.UniformResourceIdentifier(_DOMAIN + owner)
        return self._certify(key, owner, [name], ExtendedKeyUsageOID.CLIENT_AUTH)

    def renew_server(self) -> float:
        """Issue the hub a new key and certificate; return when to do it again (Unix seconds)."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [_general_name(name) for name in self._names]
        issued = self._certify(
            key.public_key(),
            "system/hub",
            names,
            ExtendedKeyUsageOID.SERVER_AUTH,
            HUB_LIFETIME_S,
        )
        write_private(self._server_file, key_pem(key) + issued.certificate.encode())
        self.server_not_after = issued.not_after
        return self.clock.time() + LIFETIME_S / 2

    def server_context(self) -> ssl.SSLContext:
        """Return a fresh context that demands a certificate of this CA from every client."""
        context = self.enrolment_context()
        context.load_verify_locations(cadata=self.ca_pem)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def enrolment_context(self) -> ssl.SSLContext:
        """Return a fresh context for the listener whose clients have no certificate yet."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # TLS 1.3 only: no negotiation of old ciphers, and client certificates are encrypted.
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.load_server_chain(context)
        return context

    def load_server_chain(self, context: ssl.SSLContext) -> None:
        """Load the hub's present certificate into a live context; open connections go on."""
        context.load_cert_chain(self._server_file)

    def _certify(
        self,
        key: ec.EllipticCurvePublicKey,
        common_name: str,
        names: list[x509.GeneralName],
        usage: x509.ObjectIdentifier,
        lifetime_s: float = LIFETIME_S,
    ) -> Issued:
        now = self.clock.time()
        serial = x509.random_serial_number()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(common_name[:64]))
            .issuer_name(self._ca.subject)
            .public_key(key)
            .serial_number(serial)
            .not_valid_before(_utc(now - _SKEW_S))
            .not_valid_after(_utc(now + lifetime_s))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(sign=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        return Issued(pem, f"{serial:x}", now + lifetime_s)


def identity_of(der: bytes | None) -> tuple[PrincipalId, str]:
    """Return the owner of a verified certificate (DER) and its serial; raise `Unauthenticated`."""
    if not der:
        raise Unauthenticated("The connection has no client certificate.")
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise Unauthenticated(f"The certificate has no name: {error}") from error
    # Exactly one name: a second one could be read as another principal somewhere else.
    match = _PEER.match(uris[0]) if len(uris) == len(list(names)) == 1 else None
    if match is None or not is_principal(match.group(1)):
        raise Unauthenticated("The certificate does not name exactly one node or agent.")
    return PrincipalId(match.group(1)), f"{certificate.serial_number:x}"


def client_context(ca_pem: str, chain: Path | None = None) -> ssl.SSLContext:
    """Return a context that trusts only this CA; `chain` holds the client's key and certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cadata=ca_pem)
        if chain is not None:
            context.load_cert_chain(chain)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidInput(f"The CA or certificate cannot be used: {error}") from error
    return context


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as unencrypted PKCS#8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def signing_request(key: ec.EllipticCurvePrivateKey) -> str:
    """Return a PEM signing request that proves possession of `key` and asks for nothing."""
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return csr.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _make_ca(now: float) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("AngelOS CA")
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_utc(now - _CA_SKEW_S))
        .not_valid_after(_utc(now + _CA_LIFETIME_S))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(sign=False), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    # One file: a crash cannot leave a key without its certificate.
    return key_pem(key) + certificate.public_bytes(serialization.Encoding.PEM)


def _key_usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        key_cert_sign=not sign,
        crl_sign=not sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _utc(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)
