"""A real Jupyter Server as a child process, over a log in a file (`served.py`)."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from pycrdt import Doc, Text
from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse

HERE = Path(__file__).parent
TEXT = "one\ntwo\n"


_SHOW = """
mount --bind "$1" "$3"
mount -t tmpfs -o mode=755 none "$2"
mkdir -p "$1"
mount --bind "$3" "$1"
"""
_BECOME = 'user=$4; shift 4; exec setpriv --reuid=$user --regid=$user --clear-groups "$@"'


def as_user(user: int | None, folder: Path) -> list[str]:
    """Return the command that runs another as a user, who can read this interpreter.

    An interpreter in a private home of root's is shown to that process alone, in an empty home.
    """
    if user is None:
        return []
    base = Path(sys.base_prefix).resolve()
    private = [path for path in base.parents if not path.stat().st_mode & 0o001]
    script = f"set -e; {_SHOW if private else ''} {_BECOME}"
    (folder / "held").mkdir(exist_ok=True)
    return [
        "unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh",
        str(base), str(private[-1] if private else ""), str(folder / "held"), str(user),
    ]  # fmt: skip


class Served:
    def __init__(self, folder: Path, root: str = "workspace", user: int | None = None) -> None:
        self.user = user
        self.folder, self.root = folder, folder / root
        self.workspace, self.log = folder / "workspace", folder / "log.jsonl"
        (self.workspace / "study").mkdir(parents=True)
        (folder / "jupyter").mkdir()
        (folder / "home").mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"

    def start(self) -> None:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "ANGELOS"))}
        env |= {"HOME": str(self.folder / "home"), "ANGELOS_DATA_DIR": str(self.folder)}
        env |= {"ANGELOS_KERNEL_MEMORY_MB": "256", "ANGELOS_KERNELS_PER_PERSON": "4"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *as_user(self.user, self.folder), sys.executable, HERE / "served.py",
                    self.workspace, self.log, self.url.rpartition(":")[2], self.root,
                ],
                env=env, cwd=self.folder, stdout=log, stderr=log,
            )  # fmt: skip
        for _ in range(600):
            assert self.process.poll() is None, self.said()
            if self._answers():
                return
            time.sleep(0.1)  # until the port answers; there is nothing else to wait for
        raise AssertionError(self.said())

    def give(self, folder: Path) -> None:
        """Give a folder to its user."""
        for path in (folder, *folder.rglob("*")):
            if self.user is not None:
                os.chown(path, self.user, self.user, follow_symlinks=False)

    def end(self, how: int = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        try:
            return self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGUSR1)  # served.py writes what it waits for
            time.sleep(1)
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"The server does not end:\n{self.said()[-20_000:]}") from None

    def said(self) -> str:
        return (self.folder / "server.log").read_text()

    def document(self, name: str, text: str = TEXT) -> str:
        (self.workspace / "study" / name).write_text(text)
        return f"study/{name}"

    def logged(self, path: str) -> str:
        """The text that the log alone gives."""
        doc = Doc()
        source = doc.get("source", type=Text)
        for update in self.updates(path):
            doc.apply_update(update)
        return str(source)

    def updates(self, path: str) -> list[bytes]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        entries = [json.loads(line) for line in lines]
        return [base64.b64decode(e["update"]) for e in entries if f"study/{e['path']}" == path]

    async def ask(
        self, path: str, token: str | None = "t-owner", method: str = "GET", **more
    ) -> HTTPResponse:
        headers = {"Authorization": f"token {token}"} if token else {}
        headers |= more.pop("headers", {})
        if "json" in more:
            more["body"] = json.dumps(more.pop("json"))
        return await AsyncHTTPClient(force_instance=True).fetch(
            HTTPRequest(
                self.url + path, method=method, headers=headers, follow_redirects=False,
                allow_nonstandard_methods=True, request_timeout=20, **more,
            ),
            raise_error=False,
        )  # fmt: skip

    def _answers(self) -> bool:
        request = urllib.request.Request(
            f"{self.url}/angelos/api/echo/up", headers={"Authorization": "token t-owner"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5):
                return True
        except OSError:
            return False
