"""What we restore beside what npm's yjs, the reference, makes of the same random histories.

ANGELOS_HISTORIES=10000 python -m pytest tests/integration/angelgit/test_beside_yjs.py
"""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from angelos.angelgit.documents import crdt
from angelos.angelgit.documents.replica import Replica
from angelos.core.ids import START
from angelos.testing import need

PEER = Path(__file__).parents[2] / "peers" / "yjs"
HISTORIES = int(os.environ.get("ANGELOS_HISTORIES", "200"))
PAGE = 100


class Yjs:
    """The peer's process, asked line by line."""

    def __init__(self, process):
        self.process = process

    def ask(self, request, answers=1):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return [json.loads(self.process.stdout.readline()) for _ in range(answers)]

    def text(self, *updates):
        coded = [base64.b64encode(update).decode() for update in updates]
        return self.ask({"updates": coded})[0]["text"]


@pytest.fixture(scope="module")
def yjs():
    need(shutil.which("node"), "node is not installed")
    need((PEER / "node_modules" / "yjs").is_dir(), "npm ci --prefix tests/peers/yjs")
    with subprocess.Popen(
        ["node", "peer.mjs"], cwd=PEER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Yjs(process)
        process.stdin.close()


def arrived(updates, drawn):
    """Return updates as a network may bring them: in another order, some twice, some merged."""
    parcels = [*updates, *drawn.sample(updates, len(updates) // 4)]
    drawn.shuffle(parcels)
    return parcels


def test_restores_are_those_of_yjs(yjs):
    checked = 0
    for start in range(0, HISTORIES, PAGE):
        count = min(PAGE, HISTORIES - start)
        for number, history in enumerate(yjs.ask({"seed": start, "count": count}, count)):
            drawn = random.Random(start + number)
            updates = [base64.b64decode(update) for update in history["updates"]]
            replica = Replica("a.txt", crdt.EMPTY, START)
            for update in arrived(updates, drawn):
                replica.apply(update)
            assert replica.deferred == []
            assert replica.text() == history["text"], f"seed {start + number}"
            state = replica.state()
            assert Replica("a.txt", state, START).text() == history["text"]
            # A restore that is edited on, as a proposal is merged, reads the same at yjs.
            text = history["text"] + "one more line\n"
            update = crdt.change("a.txt", state, text)
            if drawn.random() < 0.2:
                assert yjs.text(state, update) == text
                assert yjs.text(update, *reversed(updates)) == text
            checked += 1
    assert checked == HISTORIES
