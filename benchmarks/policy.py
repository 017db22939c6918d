"""How long the policy takes to answer, in microseconds: the median and 99 of 100.

Our own rules, and 500 rules more of which each is about one action; answers that are kept, answers
that are worked out anew (each question is about another principal), and the whole set unsliced.

    python benchmarks/policy.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

from angelos.core.ids import PrincipalId
from angelos.core.permissions import Permission, Principal, Role
from angelos.core.policy import access
from angelos.core.policy.engine import POLICY_DIR, SCHEMA, Policy

MOST_US = {"own rules": 100, "500 more, sliced": 200, "500 more, unsliced": 500, "kept": 15}


def more_rules(count: int) -> bytes:
    """Return rules about each permission in turn, none of which matches."""
    actions = list(Permission)
    rules = [
        f'@id("extra.{i}") forbid (principal == Person::"no-{i}", '
        f'action == Action::"{actions[i % len(actions)]}", resource);'
        for i in range(count)
    ]
    return "\n".join(rules).encode()


def timed(ask: Callable[[int], Any], rounds: int) -> dict[str, float]:
    """Return the median and the 99th percentile of `rounds` calls, in microseconds."""
    times = []
    for number in range(-20, rounds):
        began = time.perf_counter_ns()
        ask(number)
        if number >= 0:
            times.append((time.perf_counter_ns() - began) / 1_000)
    times.sort()
    return {"p50": round(statistics.median(times), 1), "p99": round(times[-1 - rounds // 100], 1)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rounds = 200 if options.quick else 5_000
    files = {p.name: p.read_bytes() for p in (*POLICY_DIR.glob("*.cedar"), POLICY_DIR / SCHEMA)}
    larger = files | {"zz.cedar": more_rules(500)}
    own, sliced, unsliced = Policy(files), Policy(larger), Policy(larger, sliced=False)

    def asks(policy: Policy, *, same: bool = False) -> Callable[[int], Any]:
        def ask(number: int) -> None:
            name = PrincipalId("person/pat" if same else f"person/p{number}")
            caller = Principal(id=name, role=Role.researcher)
            if not access.decision(caller, Permission.tasks_run, policy).allowed:
                msg = "a researcher may not run tasks"
                raise RuntimeError(msg)

        return ask

    measured = {
        "own rules": timed(asks(own), rounds),
        "500 more, sliced": timed(asks(sliced), rounds),
        "500 more, unsliced": timed(asks(unsliced), rounds),
        "kept": timed(asks(own, same=True), rounds),
    }
    rows = [
        {"work": work, "unit": "us", "ours": figures["p50"], "p99": figures["p99"],
         "at_most": MOST_US[work]}
        for work, figures in measured.items()
    ]  # fmt: skip
    if not options.json:
        for row in rows:
            print(f"{row['work']:20} p50 {row['ours']:7} us  p99 {row['p99']:7} us  "
                  f"at most {row['at_most']}")  # fmt: skip
    machine = {"python": platform.python_version(), "system": platform.platform()}
    print(json.dumps({"benchmark": "policy", "machine": machine, "rows": rows}))


if __name__ == "__main__":
    main()
