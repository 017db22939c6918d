"""How much one author may have under way, so that nobody fills the line of the others: pure.

>>> room_for(ControlState(), PrincipalId("agent/ada"), "study", 0.0, AuthorLimits())
''
"""

from __future__ import annotations

import msgspec

from angelos.control.state.models import ControlState
from angelos.core.ids import PrincipalId

HOUR_S = 3600.0


class AuthorLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one author, and one repository, may have."""

    open_proposals: int = 50
    """Undecided proposals of one author, in all repositories."""
    proposals_per_hour: int = 240
    """Of one author, refused ones included."""
    repo_proposals: int = 1_000
    """Proposals of a repository that are on their way; those that wait for people do not count."""


def room_for(
    state: ControlState, author: PrincipalId, repo: str, now: float, limits: AuthorLimits
) -> str:
    """Return why an author may not propose more now, or "".

    Args:
        state: All proposals that control remembers.
        author: Who proposes.
        repo: Where.
        now: Unix seconds.
        limits: What is allowed.
    """
    records = state.proposals.values()
    own = [record for record in records if record.author == author and record.part_of is None]
    if sum(record.undecided for record in own) >= limits.open_proposals:
        return f"{author} has {limits.open_proposals} open proposals"
    if sum(record.at > now - HOUR_S for record in own) >= limits.proposals_per_hour:
        return f"{author} made {limits.proposals_per_hour} proposals in the last hour"
    under_way = sum(
        record.repo == repo and record.undecided and record.state != "waiting" for record in records
    )
    if under_way >= limits.repo_proposals:
        return f"{repo} has {limits.repo_proposals} proposals under way"
    return ""
