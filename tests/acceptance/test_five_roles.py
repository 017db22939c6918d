"""The blueprint's five roles on five hosts, from `docs/how-to/deploy.md` alone, under faults."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence

import pytest

from angelos.testing import need
from tests.acceptance.hosts import ROOT, Host, Service, hosts, steps

PAGE = ROOT / "docs" / "how-to" / "deploy.md"
DATA = "--data-dir /srv/angelos/control"
PATIENCE_S = 120
NEEDED = ("ip", "openssl", "redis-server", "runuser", "/usr/lib/postgresql/15/bin/postgres")

LOAD = """
import asyncio, pathlib, sys
from angelos.client import Angelos
from angelos.core.errors import AngelError
from angelos.core.repository import NewText

place = pathlib.Path("/srv/angelos/load")

async def main():
    number = 0
    with (place / "tasks").open("a") as tasks, (place / "patches").open("a") as patches:
        while not (place / "stop").exists():
            try:
                async with asyncio.timeout(20), Angelos.connect("/srv/angelos/control") as angelos:
                    task = await angelos.tasks.start(f"print({number})")
                    print(number, task.id, file=tasks, flush=True)
                    if number % 6 == 0:
                        edit = NewText(path=f"notes/{number}.md", text=f"{number}\\n")
                        made = await angelos.proposals.create(
                            "study", [edit], base="main", message=f"note {number}"
                        )
                        print(number, made.id, file=patches, flush=True)
                    number += 1
            except (AngelError, TimeoutError, OSError):
                pass
            await asyncio.sleep(0.8)

asyncio.run(main())
"""


CHECK = """
import asyncio, json, pathlib
from angelos.client import Angelos

def pairs(name):
    lines = pathlib.Path("/srv/angelos/load", name).read_text().splitlines()
    return [(int(number), ident) for number, ident in map(str.split, lines)]

async def main():
    tasks, patches = [], []
    async with Angelos.connect("/srv/angelos/control") as angelos:
        for number, task in pairs("tasks"):
            result = await angelos.tasks[task].result()
            tasks.append((number, result.status, result.stdout))
        for number, patch in pairs("patches"):
            view = await angelos.proposals[patch].view(wait=60)
            patches.append((number, view.state))
    print(json.dumps([tasks, patches]))

asyncio.run(main())
"""


@pytest.fixture
def world(tmp_path):
    """Five hosts with a switch between them."""
    need(os.geteuid() == 0, "root, to make network namespaces")
    for program in NEEDED:
        need(shutil.which(program), f"{program} (Debian's packages; see .ci/run)")
    tmp_path.chmod(0o755)
    try:
        with hosts(tmp_path, "storage", "control", "gateway", "exec1", "labs1") as world:
            yield world
    except OSError as error:
        need(condition=False, reason=f"network namespaces: {error}")


def follow(host: Host, *blocks: list[str]) -> None:
    """Do what the page says, on a host."""
    for block in blocks:
        host.run("\n".join(["set -e", *block]))


def bring(source: Host, target: Host, *names: str) -> None:
    """Copy files of /srv/angelos from one host to another."""
    for name in names:
        shutil.copy2(source.folder / name, target.folder / name)


def deploy(world: dict[str, Host]) -> None:
    """Set everything up as the page says."""
    page = steps(PAGE)
    storage, control, gateway = (world[name] for name in ("storage", "control", "gateway"))
    follow(storage, *page["Storage"])
    storage.start("angelos-postgres")
    storage.start("angelos-redis")
    for host in (control, gateway):
        bring(storage, host, "storage.crt", "password")
    write, key = page["Control"]
    follow(control, write)
    control.start("angelos-control")
    until(control, f"angelos status {DATA} --json")
    follow(control, key)
    bring(control, gateway, "gateway.key")
    follow(gateway, *page["Gateway"])
    gateway.start("angelos-gateway")
    tokens, join = page["Nodes"]
    follow(control, tokens)
    for name in ("exec1", "labs1"):
        node = world[name]
        bring(control, node, f"{name}.token")
        command = [line.replace("exec1", name) for line in join]
        until(node, " && ".join(command))
        node.start("angelos-node@", name)
    until_a_task_runs(control)
    follow(control, *page["See that it works"])


def until(host: Host, command: str, services: Sequence[Service] = ()) -> str:
    """Run a command until it succeeds, and keep services running; return what it prints."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        for service in services:
            service.revive()
        try:
            return host.run(command)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            if time.monotonic() > deadline:
                logs = [p for h in (host,) for p in h.folder.glob("*.log")]
                tails = [f"{p}: {p.read_text(errors='replace')[-1500:]}" for p in logs]
                raise AssertionError("\n".join([str(error), *tails])) from error
            time.sleep(0.3)


def until_a_task_runs(control: Host, services: Sequence[Service] = ()) -> None:
    """Wait until a new task runs to its end."""
    command = f"timeout 30 angelos run {DATA} -c 'print(6 * 7)'"
    assert until(control, command, services) == "42\n"


def connected(control: Host) -> set[str]:
    nodes = json.loads(control.run(f"angelos node list {DATA} --json"))["nodes"]
    return {node["id"] for node in nodes if node["connected"]}


def disturb(world: dict[str, Host]) -> None:
    """Cut and heal links, and kill every process; work goes on after each."""
    control = world["control"]
    services = {name: s for host in world.values() for name, s in host.services.items()}
    for host in ("exec1", "gateway", "storage"):
        world[host].cut()
        time.sleep(1)  # long enough for packets to be lost
        world[host].heal()
    until_a_task_runs(control)
    nodes = [world[name].services["angelos-node@"] for name in ("exec1", "labs1")]
    rounds = (
        [services["angelos-redis"]],
        [services["angelos-postgres"], services["angelos-gateway"]],
        [services["angelos-control"]],
        nodes,
    )
    for killed in rounds:
        for service in killed:
            service.kill()
        until_a_task_runs(control, [s for host in world.values() for s in host.services.values()])


def account(control: Host) -> None:
    """Every task that was acknowledged has ended well, and every patch waits for a person."""
    (control.folder / "check.py").write_text(CHECK)
    tasks, patches = json.loads(control.run("python /srv/angelos/check.py", timeout=300))
    assert len(tasks) > len(patches) > 0
    assert {(number, *end) for number, *end in tasks} == {
        (number, "ok", f"{number}\n") for number, *_ in tasks
    }
    assert {state for _, state in patches} == {"waiting"}, patches
    control.run(f"angelos audit verify {DATA}")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.xdist_group("five-roles")
def test_five_roles_on_five_hosts_lose_nothing(world, tmp_path):
    deploy(world)
    control = world["control"]
    assert connected(control) == {"node/exec1", "node/labs1"}
    for name in ("study", "load"):
        (control.folder / name).mkdir()
    (control.folder / "study" / "README.md").write_text("A study.\n")
    control.run(f"angelos repo import /srv/angelos/study {DATA}")
    (control.folder / "load.py").write_text(LOAD)
    loading = subprocess.Popen(
        control.argv("exec python /srv/angelos/load.py"), env=control.environment()
    )
    try:
        disturb(world)
        (control.folder / "load" / "stop").touch()
        assert loading.wait(60) == 0
    finally:
        loading.kill()
        loading.wait()
    account(control)
