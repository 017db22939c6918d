"""Where each state of `main` comes from: an in-toto statement, SLSA provenance v1, DSSE-signed.

The statement says who proposed what on which base, which tests ran where with which results, by
which rule of which policy it landed and who approved it. All of it follows from facts, so whoever
holds an export of the audit log makes the same statement again and trusts nobody here:

    made = statement(state, record, revision)            # when main moves, and when it is verified
    text = envelope(key, made)
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from angelos.control.state.models import ControlState, ProposalRecord
from angelos.core.errors import Tampered
from angelos.core.ids import Revision
from angelos.core.signing import SigningKey, VerifyKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_BUILD = "https://angelos.dev/merge/v1"
_encoder = msgspec.json.Encoder(order="sorted")


class EnvelopeSignature(msgspec.Struct, frozen=True):
    """One signature of a DSSE envelope."""

    keyid: str
    sig: str


class ProvenanceEnvelope(msgspec.Struct, frozen=True, rename="camel"):
    """A DSSE envelope."""

    payload_type: str
    payload: str
    signatures: tuple[EnvelopeSignature, ...]


def statement(state: ControlState, record: ProposalRecord, revision: Revision) -> dict[str, Any]:
    """Return the in-toto statement of a proposal's way to `main`.

    Args:
        state: Before the fact that it is there.
        record: The proposal, in that state.
        revision: What `main` became.
    """
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {
                "name": f"{record.repo}@main",
                "digest": {"angelosRevision": revision, "angelosTree": record.tree},
            }
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": _definition(state, record),
            "runDetails": _details(record),
        },
    }


def _definition(state: ControlState, record: ProposalRecord) -> dict[str, Any]:
    """Return what was asked for, and by which rules it was judged."""
    return {
        "buildType": _BUILD,
        "externalParameters": {
            "proposal": record.id,
            "repository": record.repo,
            "author": record.author,
            "byProgram": record.by_program,
            "base": record.base,
            "digest": record.digest,
            "commit": record.commit,
            "batch": record.batch,
        },
        "internalParameters": {
            "policy": state.policy,
            "rule": record.rule,
            "solo": record.solo,
            "approvals": list(record.approvals),
            "findings": [finding.rule for finding in record.findings],
            "risk": [[factor.kind, factor.points, factor.figure] for factor in record.factors],
            "models": [],
        },
        "resolvedDependencies": [
            {
                "uri": f"angelos:{record.repo}@main",
                "digest": {"angelosRevision": record.candidate_main},
            }
        ],
    }


def _details(record: ProposalRecord) -> dict[str, Any]:
    """Return what ran, where, and how it ended."""
    return {
        "builder": {"id": "system/supervisor"},
        "metadata": {"invocationId": record.candidate},
        "byproducts": [
            {
                "name": step.name,
                "digest": {"sha256": step.digest},
                "annotations": {
                    "task": step.task,
                    "stage": step.stage,
                    "status": step.status,
                    "required": step.required,
                    "witnessed": step.witnessed,
                    "runner": step.runner,
                    "node": step.node,
                    "tier": step.tier,
                    "passed": step.passed,
                    "skipped": step.skipped,
                },
            }
            for step in record.steps
        ],
    }


def envelope(key: SigningKey, made: dict[str, Any]) -> str:
    """Return a signed DSSE envelope of a statement, as JSON."""
    body = _encoder.encode(made)
    signature = EnvelopeSignature(
        keyid=key.public.key_id, sig=_text(key.sign_envelope(PAYLOAD_TYPE, body))
    )
    signed = ProvenanceEnvelope(PAYLOAD_TYPE, _text(body), (signature,))
    return _encoder.encode(signed).decode()


def opened(text: str, key: VerifyKey | None = None) -> dict[str, Any]:
    """Return the statement in an envelope.

    Raises:
        Tampered: It is none, or `key` has not signed it.
    """
    try:
        signed = msgspec.json.decode(text, type=ProvenanceEnvelope)
        body = base64.b64decode(signed.payload, validate=True)
        made = msgspec.json.decode(body, type=dict[str, Any])
        signatures = [base64.b64decode(s.sig, validate=True) for s in signed.signatures]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Tampered(f"The provenance cannot be read: {error}.") from error
    good = key is None or any(key.verify_envelope(PAYLOAD_TYPE, body, s) for s in signatures)
    if signed.payload_type != PAYLOAD_TYPE or not good:
        raise Tampered("The provenance is not signed by the key that was given.")
    return made


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two statements say the same."""
    return _encoder.encode(one) == _encoder.encode(other)


def _text(body: bytes) -> str:
    return base64.b64encode(body).decode()
