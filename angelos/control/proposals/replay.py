"""Verifies the provenance of a revision from the facts of an export, with nothing else.

replay = ProvenanceReplay("3f2a...", key)
for fact in facts:
replay.take(fact)
replay.problems        # empty: each statement is what the facts say
"""

from __future__ import annotations

from typing import Any

from angelos.control.proposals import provenance
from angelos.control.state.decide import fold
from angelos.control.state.models import ControlState, ProposalRecord
from angelos.core.errors import AngelError, InvalidInput
from angelos.core.facts import (
    EMPTY,
    Fact,
    Kind,
    ProposalPromoted,
    TaskResult,
    result_digest,
)
from angelos.core.ids import ProposalId
from angelos.core.signing import VerifyKey

REPLAYED = frozenset(
    {
        Kind.policy_loaded,
        Kind.principal_ended,
        Kind.agent_enrolled,
        Kind.node_enrolled,
        Kind.person_added,
        Kind.person_changed,
        *(kind for kind in Kind if kind.startswith("proposal.")),
    }
)


class ProvenanceReplay:
    """Reads facts in order and makes the statements of one revision again."""

    def __init__(self, revision: str, key: VerifyKey | None = None) -> None:
        """Look for `revision`, or for the one that begins so; `key` must have signed."""
        self.statements: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self._revision = revision
        self._key = key
        self._state = ControlState()
        self._results: dict[str, tuple[str, str]] = {}
        """By task: the digest of its result, and the node that reported it."""

    def take(self, fact: Fact) -> None:
        """Read the next fact of the log."""
        if fact.kind == Kind.task_finished:
            result = fact.payload()
            if isinstance(result, TaskResult):
                self._results.setdefault(fact.subject, (result_digest(result), fact.actor))
        elif fact.kind in REPLAYED and fact.data != EMPTY:
            if fact.kind == Kind.proposal_promoted and self._named(fact):
                self._promoted(fact)
            try:
                self._state = fold(self._state, fact)
            except InvalidInput as error:
                self.problems.append(f"fact {fact.id} cannot be read: {error.detail}")

    def _named(self, fact: Fact) -> bool:
        data = fact.payload()
        own = data.commit if isinstance(data, ProposalPromoted) else None
        return any(r and r.startswith(self._revision) for r in (fact.revision, own))

    def _promoted(self, fact: Fact) -> None:
        record = self._state.proposals.get(ProposalId(fact.subject))
        data = fact.payload()
        if record is None or fact.revision is None or not isinstance(data, ProposalPromoted):
            self.problems.append(f"{fact.subject} became main, and no fact says that it was tested")
            return
        made = provenance.statement(self._state, record, fact.revision)
        self.statements.append(made)
        try:
            if not provenance.same(provenance.opened(data.provenance, self._key), made):
                self.problems.append(f"the statement of {record.id} is not what the facts say")
        except AngelError as error:
            self.problems.append(f"{record.id}: {error.detail}")
        self._check(record)

    def _check(self, record: ProposalRecord) -> None:
        """Check that what a proposal was judged by stands in the log, and is good."""
        if record.state != "approved":
            self.problems.append(f"{record.id} became main as {record.state}, not as approved")
        for step in record.steps:
            digest, node = self._results.get(step.task, ("", ""))
            if (digest, node) != (step.digest, step.node):
                self.problems.append(f"step {step.name} of {record.id} is not what {node} reported")
            if step.required and step.status != "ok":
                self.problems.append(f"step {step.name} of {record.id} ended as {step.status}")
