"""Fencing: of several processes that believe they own something, the newest is right.

>>> paused, fresh = FencingToken("repo/study", "a", 3), FencingToken("repo/study", "b", 4)
>>> check_epoch(fresh, 4)
>>> check_epoch(paused, 4)
Traceback (most recent call last):
...
angelos.core.errors.Fenced: repo/study has a newer owner: epoch 4, not 3.
"""

from __future__ import annotations

import msgspec

from angelos.core.errors import Fenced


class FencingToken(msgspec.Struct, frozen=True):
    """The right to write to one resource, until a token with a higher epoch is given."""

    resource: str
    holder: str
    """One life of one process."""
    epoch: int
    """From 1; higher for each token that is given for the resource."""


def check_epoch(token: FencingToken, highest: int) -> None:
    """Refuse a token unless its epoch is the highest that was given.

    Raises:
        Fenced: There is a newer owner, or the token was never given.
    """
    if token.epoch != highest:
        raise Fenced(
            f"{token.resource} has a newer owner: epoch {highest}, not {token.epoch}.",
            epoch=highest,
        )
