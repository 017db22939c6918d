"""The nine steps of the main job, in order. Each returns the evidence for what it says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from angelos.demo.steps import boxes, judging, merging, undoing
from angelos.demo.world import World

Step = Callable[[World], Awaitable[dict[str, Any]]]

STEPS: tuple[tuple[str, str, Step], ...] = (
    ("import", "a real repository becomes main", merging.import_repository),
    ("merge", "two agents and a person change one file at once", merging.merge_at_once),
    ("stale", "a proposal against lines that have changed is refused", merging.refuse_stale),
    ("test", "patches that break a doctest stay off main", judging.keep_broken_off),
    ("review", "policy approves, a person approves, a policy change is refused", judging.review),
    ("deploy", "canary, then execution; a sick merge rolls itself back", judging.deploy),
    ("boxes", "code that misbehaves is stopped, each with its own status", boxes.stop_attacks),
    ("undo", "main is rolled back by a new commit, and the rollback undone", undoing.roll_back),
    ("audit", "the log verifies offline; one changed byte is found", undoing.verify_audit),
)
