"""What `angelos top` shows: lines of text, from what the system says. Pure.

    lines = screen(view, Cursor(), Size(24, 80))

Every line fits the width, and nothing that a stranger wrote reaches the terminal as a control code.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import msgspec

from angelos.cli.output import printable, table
from angelos.core.api import LoadView, NodeLoadView, NodeView, TaskView

KEYS = "up/down: choose   enter: look   c: cancel   q: quit"
LOOK_KEYS = "any key: back   c: cancel"
_BAR = 10
_GIB = 2**30


class TopView(msgspec.Struct, frozen=True):
    """The system at one moment."""

    load: LoadView
    nodes: tuple[NodeView, ...]
    tasks: tuple[TaskView, ...]
    """Open ones, the running first."""


class Size(NamedTuple):
    """Of a terminal."""

    rows: int
    columns: int


class Cursor(NamedTuple):
    """The chosen task, and what is said below the tables."""

    task: str = ""
    message: str = ""


class ScreenLine(NamedTuple):
    """One line, perhaps highlighted."""

    text: str
    chosen: bool = False


def screen(view: TopView, cursor: Cursor, size: Size) -> list[ScreenLine]:
    """Return what fits on a terminal: totals, nodes, then as many tasks as there is room for."""
    head = [ScreenLine(_totals(view.load)), ScreenLine(_proposals(view.load))]
    if view.load.banner:
        head.append(ScreenLine(f"! {view.load.banner}", chosen=True))
    head.append(ScreenLine(""))
    nodes = [ScreenLine(line) for line in nodes_table(view).splitlines()]
    below = [ScreenLine(""), ScreenLine(cursor.message or KEYS)]
    room = max(3, size.rows - len(head) - len(nodes) - len(below) - 1)
    tasks = _task_lines(view, cursor, room)
    lines = [*head, *nodes, ScreenLine(""), *tasks]
    lines = [*lines[: size.rows - len(below)], *below]
    return [_fitted(line, size.columns) for line in lines[-size.rows :]]


def text(view: TopView) -> str:
    """Return the whole view, for `--once`."""
    lines = [_totals(view.load), _proposals(view.load)]
    if view.load.banner:
        lines.append(f"! {printable(view.load.banner)}")
    lines += ["", nodes_table(view)]
    if view.tasks:
        lines += ["", tasks_table(view.tasks, view.load.at)]
    return "\n".join(lines)


def look(task: TaskView, output: str, size: Size, message: str = "") -> list[ScreenLine]:
    """Return one task with the end of its output."""
    result = task.result
    lines = [
        f"{task.id}  {task.state}" + (f" ({result.status})" if result else ""),
        f"by {task.by}   node {task.node}   label {task.label or '-'}",
        f"since {time.strftime('%H:%M:%S', time.localtime(task.at))}   {task.reason}",
        "",
    ]
    room = max(1, size.rows - len(lines) - 2)
    lines += output.splitlines()[-room:]
    lines += ["", message or LOOK_KEYS]
    return [_fitted(ScreenLine(line), size.columns) for line in lines[: size.rows]]


def moved(view: TopView, cursor: Cursor, step: int) -> Cursor:
    """Return the cursor after a step up (-1) or down (1)."""
    ids = [str(task.id) for task in view.tasks]
    if not ids:
        return Cursor()
    if cursor.task not in ids:
        return Cursor(ids[0])
    return Cursor(ids[min(max(ids.index(cursor.task) + step, 0), len(ids) - 1)])


def nodes_table(view: TopView) -> str:
    """Return the nodes with their load."""
    loads = {row.id: row for row in view.load.nodes}
    rows = [_node_row(node, loads.get(node.id)) for node in view.nodes]
    head = ("node", "state", "cpu", "memory", "slots", "wait", "boxes", "queue", "isolation")
    return table(head, rows)


def _node_row(node: NodeView, measured: NodeLoadView | None) -> tuple[object, ...]:
    name, state = node.id.partition("/")[2], "connected" if node.connected else "away"
    if measured is None:
        return (name, state, "-", "-", f"{node.running}", "-", "-", "-", node.tier)
    load = measured.load
    return (
        name,
        state,
        f"{bar(load.cpu)} {load.cpu:4.0%}",
        f"{load.memory_bytes / _GIB:.1f} GiB",
        f"{load.slots_busy}/{load.slots}",
        load.slots_waiting,
        f"{load.boxes_open}+{load.boxes_ready}",
        measured.queue_waiting,
        node.tier,
    )


def bar(share: float) -> str:
    """Return a share as a bar.

    >>> bar(0.25), bar(7)
    ('##........', '##########')
    """
    filled = round(min(max(share, 0.0), 1.0) * _BAR)
    return "#" * filled + "." * (_BAR - filled)


def tasks_table(tasks: tuple[TaskView, ...], now: float) -> str:
    """Return open tasks as a table."""
    rows = [
        (task.id, task.state, age(now - task.at), task.node.partition("/")[2], task.by, task.label)
        for task in tasks
    ]
    return table(("task", "state", "age", "node", "by", "label"), rows)


def age(seconds: float) -> str:
    """Return seconds in a few characters.

    >>> age(5), age(300), age(7300), age(-1)
    ('5s', '5m', '2h', '0s')
    """
    whole = max(0, int(seconds))
    for size, unit in ((3600, "h"), (60, "m")):
        if whole >= 2 * size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def _task_lines(view: TopView, cursor: Cursor, room: int) -> list[ScreenLine]:
    if not view.tasks:
        return [ScreenLine("no open task")]
    head, *rows = tasks_table(view.tasks, view.load.at).splitlines()
    ids = [str(task.id) for task in view.tasks]
    chosen = ids.index(cursor.task) if cursor.task in ids else -1
    most = max(1, room - 1)
    first = min(max(0, chosen - most + 1), max(0, len(rows) - most))
    shown = range(first, min(len(rows), first + most))
    more = len(rows) - len(shown)
    title = f"{head}   ({more} more)" if more else head
    return [ScreenLine(title), *(ScreenLine(rows[index], index == chosen) for index in shown)]


def _totals(load: LoadView) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(load.at))
    finished = ", ".join(f"{count} {status}" for status, count in sorted(load.finished.items()))
    return (
        f"AngelOS {clock}   tasks: {load.tasks.get('running', 0)} running, "
        f"{load.tasks.get('accepted', 0)} accepted   queue: {sum(load.queue.values())}   "
        f"ended: {finished or 'none'}"
    )


def _proposals(load: LoadView) -> str:
    restarts = sum(restart.count for restart in load.restarts)
    memory = load.server_resident_bytes / 2**20
    return (
        f"proposals: {load.proposals.get('waiting', 0)} wait for a person, "
        f"{load.proposals.get('testing', 0)} in test   server: {load.server_cpu:.0%} cpu, "
        f"{memory:.0f} MiB   restarts: {restarts}"
    )


def _fitted(line: ScreenLine, columns: int) -> ScreenLine:
    return ScreenLine(printable(line.text)[: max(1, columns - 1)], line.chosen)
