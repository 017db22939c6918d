"""Exactly one task.finished for each task, in whatever order things happen.

Control's and the node's decisions are the real ones (`control/state/decide.py`,
`control/state/tasks.py`, `node/commands/inbox.py`); queue, hub, journal and the two shells are
played here, one step at a time, so that any step can come between any two others. At the end
everybody is back and has time.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from angelos.control.state.decide import decide, fold, outstanding, overdue
from angelos.control.state.effects import EndTask, PutTask, StopTask
from angelos.control.state.models import ControlState
from angelos.control.state.tasks import admitted, ended_by_node, last_moment, task_for
from angelos.core.facts import Fact, Kind, TaskResult
from angelos.core.ids import CommandId, FactId, Offset, PrincipalId, TaskId, fact_of, new_fact_id
from angelos.core.messages import Status, Tier, encode
from angelos.node.commands.inbox import Inbox

NODE, CONTROL = PrincipalId("node/exec1"), PrincipalId("system/supervisor")
GRACE_S, GONE_S, WALL_S = 15.0, 60.0, 30.0
COMMAND = CommandId("cmd-" + "1" * 32)
PICK = st.integers(0, 10)


def result(reason: str) -> dict:
    return msgspec.to_builtins(
        TaskResult(
            status=Status.killed, exit_code=None, stdout="", stderr="", duration_s=0.0,
            node="exec1", tier=Tier.full, evidence={"source": "node", "reason": reason},
        )
    )  # fmt: skip


class Look(NamedTuple):
    """The second half of PutTask: it looks whether the task was cancelled meanwhile."""

    task: TaskId


class OneEnd(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now, self.slow = 1_000.0, False
        self.journal: list[Fact] = []
        self.ids: set[FactId] = set()
        self.state, self.effects = ControlState(), []
        self.put_once: set[CommandId] = set()
        self.queue: list[tuple[str, CommandId]] = []  # ("run" | "cancel n", command), unacked
        self.out: set[str] = set()
        self.serial = 0
        self.connected = self.quarantined = False
        self.born()
        self.tell(Kind.node_enrolled, NODE, NODE, data={"role": "execution"})
        self.connect()
        self.fold_all()

    def born(self) -> None:
        """Let the node begin without any memory."""
        self.memory, self.inbox, self.outbox = Inbox(), [], []
        self.running: set[CommandId] = set()

    # -- the journal and control's fold ------------------------------------------------------

    def tell(self, kind, subject, actor, once="", data=None, **fields) -> None:
        fact = Fact(
            id=FactId(once) or new_fact_id(), at=self.now, actor=actor, kind=kind, subject=subject,
            offset=Offset(f"{len(self.journal) + 1}-0"), data=encode(data or {}),
            **fields,
        )  # fmt: skip
        if fact.id not in self.ids:
            self.ids.add(fact.id)
            self.journal.append(fact)

    def folded(self) -> int:
        return int(self.state.offset.partition("-")[0])

    def fold_all(self) -> None:
        while self.folded() < len(self.journal):
            self.fold_one()

    @precondition(lambda self: self.folded() < len(self.journal))
    @rule()
    def fold_one(self) -> None:
        fact = self.journal[self.folded()]
        self.state = fold(self.state, fact)
        self.effects += decide(self.state, fact)

    @precondition(lambda self: self.folded() == len(self.journal))
    @rule()
    def the_journal_forgets_old_ids(self) -> None:
        self.ids.clear()

    # -- people and control ------------------------------------------------------------------

    @initialize()
    def accept(self) -> None:
        data = {
            "command": COMMAND, "request": "", "node": NODE, "label": "", "wall_s": WALL_S,
            "deadline": self.now + 600, "body": b"",
        }  # fmt: skip
        self.tell(Kind.task_accepted, task_for(COMMAND), CONTROL, data=data)
        self.fold_all()

    @precondition(lambda self: all(t.cancelled_at is None for t in self.state.tasks.values()))
    @rule()
    def cancel(self) -> None:
        self.tell(Kind.task_cancelled, task_for(COMMAND), CONTROL, data={"reason": "asked"})

    @precondition(lambda self: self.effects)
    @rule(pick=PICK)
    def carry_out(self, pick) -> None:
        effect = self.effects.pop(pick % len(self.effects))
        task = self.state.tasks.get(getattr(effect, "task", TaskId("")))
        match effect:
            case PutTask() if task.open and task.cancelled_at is None:
                if task.command not in self.put_once:
                    self.put_once.add(task.command)
                    self.queue.append(("run", task.command))
                self.effects.append(Look(task.id))
            case StopTask() if task.open and task.cancelled_at is not None:
                self.recall(task)
                if not ended_by_node(self.state, task):
                    self.end(task)
            case EndTask() if task.open:
                if last_moment(self.state, task, GONE_S) < self.now - GRACE_S:
                    self.recall(task)
                    self.end(task)
            case Look() if task.cancelled_at is not None or not task.open:
                self.recall(task)

    def recall(self, task) -> None:
        self.queue = [item for item in self.queue if item != ("run", task.command)]
        if NODE not in self.state.quarantined:
            self.serial += 1
            self.queue.append((f"cancel {self.serial}", task.command))

    def end(self, task) -> None:
        assert self.slow or self.quarantined, "control says an end that was the node's to say"
        one = fact_of(task.command, Kind.task_finished)
        data = result("control")
        self.tell(Kind.task_finished, task.id, CONTROL, one, outcome="killed", data=data)
        self.fold_all()

    @rule()
    def control_is_restarted(self) -> None:
        self.state, self.effects = ControlState(), []
        self.fold_all()
        self.effects = outstanding(self.state)

    @rule(seconds=st.sampled_from([20, 80, 700]))
    def time_goes_on(self, seconds) -> None:
        self.slow = True
        self.now += seconds
        self.effects += overdue(self.state, self.now, GRACE_S, GONE_S)

    # -- the hub -----------------------------------------------------------------------------

    @precondition(lambda self: self.connected)
    @rule()
    def deliver(self) -> None:
        if not self.connected:
            return
        for item in self.queue:
            if str(item) not in self.out:
                self.out.add(str(item))
                self.inbox.append(item)
                return

    @precondition(lambda self: self.connected and self.outbox)
    @rule()
    def hear(self) -> None:
        kind, subject, id_, data = self.outbox.pop(0)
        if kind == "ack":
            self.queue = [item for item in self.queue if item != subject]
            return
        fact = Fact(id=FactId(""), at=self.now, actor=NODE, kind=kind, subject=subject)
        if (written := admitted(self.state, fact)) is not None:
            id_ = id_ if written.kind == kind else written.id
            outcome = str(data.get("status", ""))
            self.tell(written.kind, subject, NODE, id_, outcome=outcome, data=data)

    @precondition(lambda self: self.connected)
    @rule()
    def disconnect(self) -> None:
        self.connected = False
        self.tell(Kind.node_disconnected, NODE, NODE)

    @precondition(lambda self: not self.connected and not self.quarantined)
    @rule()
    def connect(self) -> None:
        self.connected = True
        self.tell(Kind.node_connected, NODE, NODE, data={"role": "execution", "tier": "full"})

    @rule()
    def the_session_is_forgotten(self) -> None:
        self.out.clear()  # all that is not acknowledged is delivered again

    @rule()
    def the_node_is_killed(self) -> None:
        self.born()
        self.out.clear()

    @precondition(lambda self: not self.quarantined)
    @rule(pick=PICK)
    def quarantine(self, pick) -> None:
        if pick == 0:  # seldom: little can happen afterwards
            self.quarantined, self.connected = True, False
            self.tell(Kind.principal_quarantined, NODE, CONTROL, data={"reason": "rogue"})

    # -- the node ----------------------------------------------------------------------------

    @precondition(lambda self: self.inbox)
    @rule()
    def take(self) -> None:
        item = self.inbox.pop(0)
        what, command = item
        if what == "run":
            match self.memory.receive(command):
                case "start":
                    self.running.add(command)
                case "finished":
                    self.outbox.append(("ack", item, "", {}))
            return
        match self.memory.cancel(command):
            case "end":
                self.finish(command)
            case "stop":
                self.finish(command)
                self.outbox.append(("ack", ("run", command), "", {}))
        self.outbox.append(("ack", item, "", {}))

    @precondition(lambda self: self.running)
    @rule()
    def start(self) -> None:
        self.outbox.append((Kind.task_started, task_for(COMMAND), "", {"attempt": 1}))

    @precondition(lambda self: self.running)
    @rule()
    def complete(self) -> None:
        self.finish(COMMAND)
        self.outbox.append(("ack", ("run", COMMAND), "", {}))

    def finish(self, command) -> None:
        self.running.discard(command)
        self.memory.finish(command)
        one = fact_of(command, Kind.task_finished)
        self.outbox.append((Kind.task_finished, task_for(command), one, result("node")))

    # -- what must hold ----------------------------------------------------------------------

    def ends(self) -> list[str]:
        return [fact.subject for fact in self.journal if fact.kind == Kind.task_finished]

    @invariant()
    def what_a_node_reports_late_is_told_beside_the_end_that_control_said(self) -> None:
        for task in self.state.tasks.values():
            if task.reported is not None:
                assert task.given_up
                assert task.result.evidence["reason"] == "control"
                assert task.reported.evidence["reason"] == "node"

    @invariant()
    def never_twice(self) -> None:
        assert len(self.ends()) == len(set(self.ends()))

    def teardown(self) -> None:
        """Let everybody come back and go on until nothing is left to do; then let time pass."""
        self.settle()
        self.time_goes_on(2_000)
        self.settle()
        assert sorted(self.ends()) == sorted(self.state.tasks)

    def settle(self) -> None:
        for _ in range(6):
            self.fold_all()
            if not self.connected and not self.quarantined:
                self.connect()
            while self.effects:
                self.carry_out(0)
            for _ in self.queue:
                self.deliver()
            while self.inbox:
                self.take()
            while self.running:
                self.complete()
            while self.connected and self.outbox:
                self.hear()


TestOneEnd = OneEnd.TestCase
TestOneEnd.settings = settings(max_examples=250, stateful_step_count=40, deadline=None)
