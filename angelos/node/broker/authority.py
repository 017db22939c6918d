"""A certificate authority for one box: its key lives in the broker's memory and ends with it."""

from __future__ import annotations

import datetime as dt
import os
import ssl
import weakref

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from angelos.core.errors import InvalidInput
from angelos.core.network import normal_host

_DAY = dt.timedelta(days=1)
_LIFETIME = dt.timedelta(days=30)
"""Kernels live long, and no box outlives it: a new one has an authority of its own."""


class BoxAuthority:
    """Makes the certificates that one box sees in place of those of the hosts it talks to."""

    def __init__(self, name: str) -> None:
        """Make a key and a certificate for the box of `name`."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _named(f"AngelOS broker of {name}"[:64])
        self._now = dt.datetime.now(dt.UTC)
        unused = ("digital_signature", "content_commitment", "key_encipherment", "key_agreement")
        unused += ("data_encipherment", "encipher_only", "decipher_only")
        usage = x509.KeyUsage(**dict.fromkeys(unused, False), key_cert_sign=True, crl_sign=True)
        builder = (
            self._builder(self._subject, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
        )
        self._certificate = builder.sign(self._key, hashes.SHA256())
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)
        """What the box trusts."""
        self._contexts: dict[str, ssl.SSLContext] = {}
        self.misnamed: weakref.WeakSet[ssl.SSLObject] = weakref.WeakSet()
        """Handshakes that were refused since they named another host."""

    def context(self, host: str) -> ssl.SSLContext:
        """Return the context in which a server of `host` answers, to handshakes that name it."""
        if host not in self._contexts:
            self._contexts[host] = self._make(host)
        return self._contexts[host]

    def _make(self, host: str) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        builder = (
            self._builder(_named(host[:64]), key)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer),
                critical=False,
            )
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])

        def on_name(tls: ssl.SSLObject, name: str | None, _: object) -> int | None:
            if name is not None and _is(host, name):
                return None
            self.misnamed.add(tls)
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

        context.sni_callback = on_name  # pyright: ignore[reportAttributeAccessIssue]
        _load(context, key, certificate)
        return context

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - _DAY)
            .not_valid_after(self._now + _LIFETIME)
            .add_extension(identifier, critical=False)
        )


def _is(host: str, name: str) -> bool:
    try:
        return normal_host(name) == host
    except InvalidInput:
        return False


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _load(
    context: ssl.SSLContext, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
) -> None:
    """Give a context its key, by a file in memory: OpenSSL's interface in Python takes paths."""
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem + certificate.public_bytes(serialization.Encoding.PEM))
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
