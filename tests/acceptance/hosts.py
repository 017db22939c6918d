"""Hosts for tests: network namespaces on one switch, each with a /srv/angelos of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deploy" / "systemd"
PLACE = Path("/srv/angelos")
NET = "10.77.13"
STOP_S = 60


class Host:
    """One host; `cut` and `heal` take its link away and give it back."""

    def __init__(self, name: str, prefix: str, number: int, folder: Path) -> None:
        self.name, self.space, self.link = name, f"{prefix}{name}", f"{prefix}{number}"
        self.address = f"{NET}.{number}"
        self.folder = folder
        self.services: dict[str, Service] = {}
        folder.mkdir(mode=0o755)

    def argv(self, command: str) -> list[str]:
        """Return what runs a shell's command on this host."""
        script = f"mount --bind {self.folder} {PLACE} && {command}"
        return ["ip", "netns", "exec", self.space, "sh", "-c", script]

    def environment(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        """Return a clean environment with this checkout's programs first on PATH."""
        path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        keep = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        return {
            "PATH": path,
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            **keep,
            **(extra or {}),
        }

    def run(self, command: str, timeout: float = 120) -> str:
        """Run a command and return what it prints; it must succeed."""
        done = subprocess.run(
            self.argv(command), env=self.environment(), capture_output=True, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{self.name}: {command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def cut(self) -> None:
        """Take the link down."""
        ip("link", "set", self.link, "down")

    def heal(self) -> None:
        """Bring the link up again."""
        ip("link", "set", self.link, "up")

    def start(self, unit: str, instance: str = "") -> Service:
        """Start what a unit of deploy/systemd starts."""
        service = Service(self, unit, instance)
        self.services[unit] = service
        service.start()
        return service


class Service:
    """One unit of deploy/systemd, started without systemd."""

    def __init__(self, host: Host, unit: str, instance: str) -> None:
        text = (UNITS / f"{unit}.service").read_text().replace("%i", instance)
        self.host = host
        self.command = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)[1].replace(
            "/opt/angelos/bin/", ""
        )
        user = re.search(r"^User=(.*)$", text, re.MULTILINE)[1]
        if user != "angelos":  # that one is root here: this checkout is root's
            self.command = f"setpriv --reuid {user} --regid {user} --init-groups {self.command}"
        file = re.search(r"^EnvironmentFile=(.*)$", text, re.MULTILINE)
        self.file = host.folder / Path(file[1]).name if file else None
        self.log = host.folder / f"{unit}{instance}.log"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start it, again after `kill`."""
        lines = self.file.read_text().splitlines() if self.file else []
        extra = dict(line.split("=", 1) for line in lines)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.host.argv(f"exec {self.command}"), env=self.host.environment(extra),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def revive(self) -> None:
        """Start it again if it has ended, as `Restart=always` does."""
        if self.process is not None and self.process.poll() is not None:
            self.start()

    def kill(self) -> None:
        """Kill it and what it has started in its session, as systemd kills a control group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, 9)
        self.process.wait(STOP_S)

    def stop(self) -> None:
        """End it in good order."""
        if self.process is None or self.process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, 15)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()


def ip(*args: str) -> None:
    """Run ip(8)."""
    done = subprocess.run(["ip", *args], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {shlex.join(args)}: {done.stderr.strip()}")


@contextmanager
def hosts(folder: Path, *names: str) -> Iterator[dict[str, Host]]:
    """Yield hosts by name, who find each other by name; raise `OSError` where none can be made."""
    prefix = f"a{os.getpid()}"
    switch = f"{prefix}s"
    made = {n: Host(n, prefix, i, folder / n) for i, n in enumerate(names, 1)}
    etc = [Path("/etc/netns") / host.space for host in made.values()]
    fresh = not PLACE.exists()
    try:
        PLACE.mkdir(exist_ok=True)
        ip("link", "add", switch, "type", "bridge")
        ip("link", "set", switch, "up")
        table = "127.0.0.1 localhost\n" + "".join(f"{h.address} {n}\n" for n, h in made.items())
        for host, place in zip(made.values(), etc, strict=True):
            place.mkdir(parents=True)
            (place / "hosts").write_text(table)
            _plug(host, switch)
        yield made
    finally:
        for host in reversed(made.values()):
            for service in reversed(host.services.values()):
                service.stop()
        for host in made.values():
            with contextlib.suppress(OSError):
                ip("netns", "del", host.space)
        with contextlib.suppress(OSError):
            ip("link", "del", switch)
        for place in etc:
            (place / "hosts").unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                place.rmdir()
        if fresh:
            with contextlib.suppress(OSError):
                PLACE.rmdir()


def _plug(host: Host, switch: str) -> None:
    inside = ("netns", "exec", host.space, "ip")
    ip("netns", "add", host.space)
    ip("link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", host.space)
    ip("link", "set", host.link, "master", switch)
    ip("link", "set", host.link, "up")
    ip(*inside, "addr", "add", f"{host.address}/24", "dev", "eth0")
    ip(*inside, "link", "set", "eth0", "up")
    ip(*inside, "link", "set", "lo", "up")


def steps(page: Path) -> dict[str, list[list[str]]]:
    """Return the `$` lines of a page's console blocks, by heading, block by block."""
    found: dict[str, list[list[str]]] = {}
    heading, block = "", None
    for line in page.read_text().splitlines():
        if line.startswith("## "):
            heading = line[3:]
        elif line.startswith("```"):
            block = [] if line == "```console" else None
            if block is not None:
                found.setdefault(heading, []).append(block)
        elif block is not None and line.startswith("$ "):
            block.append(line[2:])
    return found
