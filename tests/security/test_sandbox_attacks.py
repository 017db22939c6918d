"""Real attacks in real boxes, as root and as a user without any rights, with both ways to count."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kernel_attacks import CATEGORIES as CELLS
from sandbox_attacks import CATEGORIES, HONEST, SECRET, Attack

from angelos.testing import need

RUNNER = Path(__file__).with_name("sandbox_runner.py")
WAYS = [("nobody", "auto"), ("nobody", "sampler")]
if os.geteuid() == 0:
    WAYS += [("root", "auto"), ("root", "sampler")]
_done: dict[tuple[str, str], dict[str, Any]] = {}


@pytest.fixture(params=WAYS, ids="-".join, scope="module")
def results(request: pytest.FixtureRequest) -> dict[str, Any]:
    way = request.param
    if way not in _done:
        done = subprocess.run(
            [sys.executable, str(RUNNER), *way],
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
            env={**os.environ, "ANGELOS_SECRET": SECRET},
        )
        assert done.returncode == 0, done.stderr
        _done[way] = {**json.loads(done.stdout), "way": way}
    results = _done[way]
    need(results["tier"] in ("full", "reduced"), f"no boxes here: {results['reasons']}")
    return results


RUN = [
    pytest.param(attack, id=f"{category}: {attack.name}")
    for category, attacks in {**CATEGORIES, "no attack": HONEST}.items()
    for attack in attacks
]


def test_attacks_of_every_category_are_tried() -> None:
    counts = {name: len(CATEGORIES[name]) + len(CELLS[name]) for name in CATEGORIES}
    assert sum(counts.values()) >= 150, counts
    assert min(counts.values()) >= 20, counts


@pytest.mark.parametrize("attack", RUN)
def test_an_attack_ends_with_its_own_status(results: dict[str, Any], attack: Attack) -> None:
    result = results[attack.name]
    assert result["status"] == attack.status, result
    evidence = result["evidence"]
    assert {key: evidence.get(key) for key in attack.evidence} == attack.evidence, result
    assert attack.says in result["printed"], result
    if attack.exit_code is not None:
        assert result["exit_code"] == attack.exit_code, result
    assert result["bytes"] <= attack.limits.output_bytes


def test_the_kernel_counts_where_it_can(results: dict[str, Any]) -> None:
    witness = "kernel" if results["tier"] == "full" else "sampler"
    for name in ("fork bomb", "memory hog", "computes for ever"):
        assert results[name]["evidence"]["source"] == witness


def test_nothing_is_left(results: dict[str, Any]) -> None:
    assert results["processes left"] == []
    assert results["groups left"] == []
