"""Settings of control; the defaults suit most systems.

>>> ControlConfig(grace_s=5).grace_s
5
"""

from __future__ import annotations

import msgspec

from angelos.control.proposals.limits import AuthorLimits
from angelos.control.state.pauses import BudgetConfig
from angelos.core.network import NetworkRule


class ControlConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and times of control."""

    allow_unsandboxed: bool = False
    """Let the policy send code to nodes without isolation; a banner says so."""
    start_within_s: float = 600.0
    """A task that has not started this long after it was accepted is ended."""
    node_gone_s: float = 60.0
    """A task that has not started is ended when its node has been away for this long."""
    grace_s: float = 15.0
    """How long beyond a limit the node's own report is awaited."""
    tick_s: float = 1.0
    """How often deadlines are checked."""
    max_wait_s: float = 60.0
    """Longest long-poll."""
    merge_wait_s: float = 10.0
    """How long a new proposal's answer waits for its merge into `dev`."""
    fold_wait_s: float = 30.0
    """How long a fact just appended may take to come back from the journal."""
    retry_s: float = 0.5
    """First pause before an effect is retried; doubles up to `retry_max_s`."""
    retry_max_s: float = 30.0
    stuck_s: float = 60.0
    """A rollout goes round a canary that is silent for so long; a card says so."""
    checkout_ttl_s: float = 3600.0
    """How long a checkout command is valid."""
    order_ttl_s: float = 30 * 86_400.0
    """How long cancel and revoke commands are valid; a node may come back late."""
    max_open_tasks: int = 1_000
    max_open_per_node: int = 128
    """Open tasks of one node, after which it is full; steps of proposals are taken all the same.

    It is well below what a node lets wait, so what was accepted is never ended for want of room.
    """
    full_retry_s: float = 2.0
    """What a full node's `Retry-After` says."""
    author_limits: AuthorLimits = AuthorLimits()
    """How many proposals one author, and one repository, may have under way."""
    budgets: BudgetConfig = BudgetConfig()
    """What agents may use within an hour before they are paused and a person is asked."""
    network: tuple[NetworkRule, ...] = ()
    """What the operator lists of the network; the policy decides who gets which of it."""
    waiting_expires_s: float = 14 * 86_400.0
    """A proposal that waits for people so long after it was made is rejected."""
    step_attempts: int = 3
    """How often a step of the pipeline is tried when its node, not its program, fails."""
    step_output: int = 8_000
    """Characters of a step's output that the proposal keeps."""
    page: int = 1_000
    """Facts read at once when the state is rebuilt."""
    snapshot_facts: int = 5_000
    """The state is saved when so many facts were folded; at an end after a fifth of them."""
    snapshot_wait_s: float = 20.0
    """How long an end waits for its snapshot."""
