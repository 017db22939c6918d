"""What is watched, how sure a signal is, what follows from it, and its settings.

>>> DetectionConfig().response(Severity.certain), DetectionConfig().response(Severity.statistical)
(<AlarmResponse.quarantined: 'quarantined'>, <AlarmResponse.observed: 'observed'>)
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from angelos.core.facts import AlarmResponse, AlarmSignal
from angelos.core.ids import FactId, PrincipalId

Number = Annotated[float, msgspec.Meta(gt=0)]


class Severity(StrEnum):
    """How sure a signal is."""

    notice = "notice"
    """Worth a look; nothing is ever stopped."""
    statistical = "statistical"
    """Odd against the history: at most a pause, and a person is asked."""
    certain = "certain"
    """No honest agent causes it: quarantine."""


class SignalMode(StrEnum):
    """What is done about a signal."""

    observe = "observe"
    """It is reported with what would have been done."""
    enforce = "enforce"


class DetectionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Thresholds of detection; `[detection]` of `angelos.toml` in the data directory."""

    certain: SignalMode = SignalMode.enforce
    """Whether certain signals quarantine, or are only reported."""
    statistical: SignalMode = SignalMode.observe
    """Whether statistical signals pause the agent and ask, or are only reported."""
    window_s: Number = 600.0
    """How long what weighs is remembered, and the same alarm of an agent is not repeated."""
    notice_score: Number = 10.0
    """Weight of refused calls within the window that is reported."""
    quarantine_score: Number = 25.0
    """Weight of refused calls within the window that no honest agent has."""
    run_score: Number = 20.0
    """The most that the refused calls of one run weigh: one program alone is no intent."""
    repeat_score: Number = 1.0
    """Weight of a run that makes only such calls as were counted within the window."""
    egress_calls: Number = 1_000
    """Refused attempts to reach a network, within the window, that are a burst."""
    rate_deviations: Number = 4.0
    """Standard deviations above its own history from which a minute is odd."""
    persistence: Annotated[int, msgspec.Meta(ge=1, le=5)] = 2
    """Of the last five minutes or runs, how many have to be odd."""
    rare_call_share: Number = 0.005
    """A refused call that fewer of the role's runs make is odd."""
    role_runs: Annotated[int, msgspec.Meta(ge=1)] = 200
    """Runs of a role before its history says what is odd."""
    self_paths: tuple[str, ...] = (
        "**/.git/**",
        "**/.githooks/**",
        "**/hooks/pre-*",
        "**/hooks/post-*",
        "**/.husky/**",
        "angelos/core/policy/**",
        "angelos/control/**",
        "angelos/governance/**",
        "angelos/node/sandbox/**",
    )
    """What supervises, boxes and decides: an agent that changes it changes what holds it."""

    def response(self, severity: Severity) -> AlarmResponse:
        """Return what follows from a signal."""
        if severity is Severity.certain and self.certain is SignalMode.enforce:
            return AlarmResponse.quarantined
        if severity is Severity.statistical and self.statistical is SignalMode.enforce:
            return AlarmResponse.paused
        return AlarmResponse.observed


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """What a detector saw in one fact."""

    signal: AlarmSignal
    severity: Severity
    reason: str
    """Continues a sentence that begins with the principal."""
    figures: dict[str, Any]
    acts: tuple[FactId, ...] = ()
    """The facts that it rests on, the last ones."""


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """A sighting about somebody, with what is done; `id` depends on the facts alone."""

    id: FactId
    principal: PrincipalId
    sighting: Sighting
    response: AlarmResponse


def alarm(
    principal: PrincipalId, sighting: Sighting, because: FactId, response: AlarmResponse
) -> Alarm:
    """Return the alarm that a sighting raises."""
    digest = hashlib.sha256(f"{sighting.signal} {because} {principal}".encode()).hexdigest()
    return Alarm(
        id=FactId(f"fact-{digest[:32]}"), principal=principal, sighting=sighting, response=response
    )
