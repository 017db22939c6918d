"""Certificates name whom the CA says and nobody else, whatever was asked for."""

from __future__ import annotations

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from angelos.adapters.identity.authority import (
    LIFETIME_S,
    Pki,
    client_context,
    identity_of,
    signing_request,
)
from angelos.core.errors import InvalidInput, Tampered, Unauthenticated
from angelos.core.ids import PrincipalId
from angelos.testing import ManualClock

NODE = PrincipalId("node/exec1")


@pytest.fixture
def pki(tmp_path) -> Pki:
    return Pki.open(tmp_path / "keys", ManualClock())


def der(certificate: str) -> bytes:
    loaded = x509.load_pem_x509_certificate(certificate.encode())
    return loaded.public_bytes(serialization.Encoding.DER)


def pem(csr: x509.CertificateSigningRequest) -> str:
    return csr.public_bytes(serialization.Encoding.PEM).decode()


def test_a_request_gets_its_key_certified_and_nothing_else(pki) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "system/hub")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.UniformResourceIdentifier("spiffe://angelos/x")]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    issued = pki.issue(pem(greedy), NODE)
    certificate = x509.load_pem_x509_certificate(issued.certificate.encode())
    find = certificate.extensions.get_extension_for_class
    assert not find(x509.BasicConstraints).value.ca
    names = list(find(x509.SubjectAlternativeName).value)
    assert names == [x509.UniformResourceIdentifier("spiffe://angelos/node/exec1")]
    assert list(find(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert certificate.public_key() == key.public_key()
    end = dt.datetime.fromtimestamp(pki.clock.time() + LIFETIME_S, dt.UTC)
    assert certificate.not_valid_after_utc == end
    assert identity_of(der(issued.certificate)) == (NODE, issued.serial)


def test_other_keys_and_broken_requests_are_refused(pki) -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    good = signing_request(ec.generate_private_key(ec.SECP256R1()))
    for csr in (
        "",
        "nonsense",
        good.replace("A", "B", 5),
        pem(builder.sign(rsa.generate_private_key(65537, 2048), hashes.SHA256())),
        pem(builder.sign(ec.generate_private_key(ec.SECP384R1()), hashes.SHA256())),
    ):
        with pytest.raises(InvalidInput):
            pki.issue(csr, NODE)


def test_a_request_signed_with_another_key_is_refused(pki) -> None:
    one, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    body = builder.sign(one, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    key = serialization.PublicFormat.SubjectPublicKeyInfo
    swap = [k.public_key().public_bytes(serialization.Encoding.DER, key) for k in (one, other)]
    stolen = x509.load_der_x509_csr(body.replace(swap[0], swap[1]))
    with pytest.raises(InvalidInput, match="own key"):
        pki.issue(pem(stolen), NODE)


@pytest.mark.parametrize("who", ["person/ada", "system/hub", "node/", "node/a/b", "agent/../x"])
def test_only_nodes_and_agents_have_certificates(pki, who) -> None:
    csr = signing_request(ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(InvalidInput):
        pki.issue(csr, PrincipalId(who))


def test_the_hubs_certificate_names_nobody(pki, tmp_path) -> None:
    body = (tmp_path / "keys" / "hub.pem").read_text()
    certificate = body[body.index("-----BEGIN CERTIFICATE") :]
    with pytest.raises(Unauthenticated):
        identity_of(der(certificate))
    for nobody in (None, b"", b"nonsense"):
        with pytest.raises(Unauthenticated):
            identity_of(nobody)


def test_the_ca_is_made_once_and_kept_private(tmp_path) -> None:
    first = Pki.open(tmp_path, ManualClock())
    assert Pki.open(tmp_path, ManualClock()).ca_pem == first.ca_pem
    (tmp_path / "ca.pem").chmod(0o644)
    with pytest.raises(Tampered, match="Other users may read"):
        Pki.open(tmp_path, ManualClock())
    (tmp_path / "ca.pem").chmod(0o600)
    (tmp_path / "ca.pem").write_text("nonsense")
    with pytest.raises(Tampered):
        Pki.open(tmp_path, ManualClock())


def test_a_context_needs_a_real_ca(tmp_path) -> None:
    with pytest.raises(InvalidInput):
        client_context("nonsense")
