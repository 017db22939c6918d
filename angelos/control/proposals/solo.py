"""Whether one person works alone: `solo = true` under `[review]`, while nobody else may review.

It is one person's own, explicit setting, read from `main` and never from the proposal that is
judged. It lets them approve what they and their agents propose, and it ends by itself.

>>> from angelos.core.ids import PrincipalId
>>> from angelos.core.permissions import Role
>>> owner = PersonView(id=PrincipalId("person/owner"), role=Role.admin)
>>> reader = PersonView(id=PrincipalId("person/vic"), role=Role.viewer)
>>> alone(ReviewRules(solo=True), [owner, reader])
True
>>> alone(ReviewRules(), [owner])
False
"""

from __future__ import annotations

from collections.abc import Iterable

from angelos.control.proposals.repo_config import ReviewRules
from angelos.core.api import PersonView
from angelos.core.ids import PrincipalId
from angelos.core.permissions import Permission
from angelos.core.policy.access import permissions_of


def alone(
    rules: ReviewRules, people: Iterable[PersonView], person: PrincipalId | None = None
) -> bool:
    """Return whether the only person who may review approves their own proposals.

    Args:
        rules: Of `main`.
        people: Everybody, the owner included.
        person: Whose approval it is, if anybody's: somebody who was removed a moment ago is not
            the one who works alone.
    """
    reviewers = [p.id for p in people if Permission.proposals_review in permissions_of(p.role)]
    return rules.solo and len(reviewers) == 1 and person in {None, *reviewers}
