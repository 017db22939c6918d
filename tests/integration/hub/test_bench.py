"""`angelos hub bench`: a hub of its own, measured as a user does it."""

from __future__ import annotations

import json
import subprocess
import sys


def test_a_user_measures_the_hub_of_this_machine():
    command = [sys.executable, "-m", "angelos", "hub", "bench", "--count", "100", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    works = {figure["work"] for figure in answer["figures"]}
    assert works >= {
        "fact acknowledged",
        "command put, node, acknowledged",
        "fact to event reader",
        "one fact at a time, p50",
    }
    assert all(figure["value"] > 0 for figure in answer["figures"])
    assert answer["durability"] == "everysec"
