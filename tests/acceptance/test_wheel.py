"""The wheel works where there is no checkout: built, installed and used as its users do.

One environment for each Python grows from the plain package to the whole server, so that each
extra is also seen to be enough for what it promises.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.11", "3.12")
PACKAGES = ("angelos", "jupyter_ext", "llm")
TOKEN = "a-token-of-forty-characters-for-this-test"
READY_S = 120

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.xdist_group("wheel")]


def interpreter(version: str) -> str | None:
    """Return a Python of this version that is on PATH and starts."""
    candidates = (sys.executable, shutil.which(f"python{version}"))
    question = "import sys; print('%d.%d' % sys.version_info[:2])"
    for path in filter(None, candidates):
        answer = subprocess.run([path, "-c", question], capture_output=True, text=True, check=False)
        if answer.stdout.strip() == version:
            return path
    return None


PYTHONS = [version for version in VERSIONS if interpreter(version)]


def environment(home: Path) -> dict[str, str]:
    """Return an environment in which nothing points into the checkout or at a running system."""
    dropped = ("ANGELOS", "JUPYTER", "PYTEST", "PYTHON", "VIRTUAL_ENV", "XDG")
    env = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return env | {"HOME": str(home), "PIP_CONSTRAINT": str(ROOT / "constraints.txt")}


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The source archive, and the wheel that was built from it alone."""
    folder = tmp_path_factory.mktemp("dist")
    argv = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    subprocess.run(argv, env=environment(folder), check=True, timeout=300)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


class Installed:
    """A virtual environment outside the checkout."""

    def __init__(self, folder: Path, python: str, wheel: Path) -> None:
        self.folder, self.wheel = folder, wheel
        self.env = environment(folder)
        subprocess.run([python, "-m", "venv", str(folder / "venv")], env=self.env, check=True)

    def program(self, name: str) -> str:
        """Return the path of a program of the environment."""
        return str(self.folder / "venv" / "bin" / name)

    def run(self, name: str, *args: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in an empty folder."""
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        return subprocess.run(
            [self.program(name), *args],
            cwd=work, env=self.env, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def install(self, extra: str = "") -> None:
        """Install the wheel with an extra."""
        target = f"{self.wheel}{extra}"
        result = self.run("python", "-m", "pip", "install", "-q", target, timeout=600)
        assert result.returncode == 0, result.stderr

    @contextmanager
    def up(self):
        """Run `angelos up`; yield its data directory."""
        data = str(self.folder / "data")
        argv = [self.program("angelos"), "up", "--json", "--data-dir", data]
        process = subprocess.Popen(argv, env=self.env, stdout=subprocess.PIPE, text=True)
        try:
            assert any('"ready"' in line for line in process.stdout or ()), "up has ended"
            yield data
        finally:
            process.terminate()
            process.communicate(timeout=60)
        assert process.returncode == 0

    @contextmanager
    def jupyter_lab(self):
        """Run a plain `jupyter lab`; yield how to ask our API."""
        argv = [
            self.program("jupyter"), "lab", "--no-browser", "--ServerApp.port=0", "--allow-root",
            f"--ServerApp.root_dir={self.folder / 'work'}",
        ]  # fmt: skip
        runtime = self.folder / "runtime"
        env = self.env | {
            "PATH": f"{self.folder / 'venv' / 'bin'}:{self.env['PATH']}",
            "JUPYTER_TOKEN": TOKEN,
            "JUPYTER_RUNTIME_DIR": str(runtime),
        }
        with (self.folder / "lab.log").open("w") as log:
            process = subprocess.Popen(argv, env=env, stdout=log, stderr=log)
            try:
                yield lambda path: self._ask(process, runtime, path)
            finally:
                process.terminate()
                assert process.wait(60) == 0

    def _ask(self, process: subprocess.Popen, runtime: Path, path: str) -> dict:
        """Return our API's answer, once there is one."""
        deadline = time.monotonic() + READY_S
        while process.poll() is None and time.monotonic() < deadline:
            for file in runtime.glob("jpserver-*.json"):
                try:
                    url = f"{json.loads(file.read_text())['url']}angelos/api{path}"
                    request = Request(url, headers={"Authorization": f"token {TOKEN}"})
                    with urlopen(request, timeout=30) as response:
                        return json.load(response)
                except (URLError, ValueError):  # it starts
                    continue
            time.sleep(0.1)
        pytest.fail((self.folder / "lab.log").read_text())


def names_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_everything_that_is_not_code_is_in_the_wheel(archives):
    listed = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=False
    )
    files = set(listed.stdout.split()) or {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = names_of(archives[1])
    assert {name for name in files if (ROOT / name).exists()} - names == set()
    suffixes = {Path(name).suffix for name in names}
    assert {".sql", ".cedar", ".cedarschema", ".json", ".js", ".css", ".typed"} <= suffixes
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("etc/jupyter/jupyter_server_config.d/angelos.json") for name in names)
    assert not any(name.startswith(("tests/", "tools/", "docs/")) for name in names)


def test_the_source_archive_has_what_its_make_targets_use(archives):
    with tarfile.open(archives[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "Makefile", "constraints.txt", "README.md", "docs/conf.py"} <= names
    assert {"tests/conftest.py", "tools/vocabulary.py", "notebooks/00_quickstart.ipynb"} <= names
    assert not any(name.startswith((".venv", "docs/_build", "dist/")) for name in names)


@pytest.mark.parametrize("version", PYTHONS)
def test_the_wheel_works_in_an_empty_environment(archives, tmp_path, version):
    installed = Installed(tmp_path, interpreter(version), archives[1])
    installed.install()
    assert_client(installed)
    installed.install("[node]")
    assert_node(installed)
    installed.install("[server]")
    assert_server(installed)
    with installed.jupyter_lab() as ask:
        status = ask("/status")
        assert status["tier"] in {"full", "reduced", "landlock", "none"}


def assert_client(installed: Installed) -> None:
    """The client and the command line, with no system to speak to."""
    assert installed.run("python", "-c", "import angelos.client").returncode == 0
    assert "angelos proposal create" in installed.run("angelos", "--help").stdout
    status = installed.run("angelos", "status")
    assert (status.returncode, "No system runs on" in status.stderr) == (1, True)
    for command in ("up", "demo"):
        refused = installed.run("angelos", command)
        assert refused.returncode == 1
        assert "pip install 'angelos[server]'" in refused.stderr
        assert "Traceback" not in refused.stderr
    absent = installed.run("python", "-c", "import jupyter_server")
    assert absent.returncode == 1


def assert_node(installed: Installed) -> None:
    """A node's program, and a box that it makes; still no Jupyter Server and no database."""
    assert "--name" in installed.run("python", "-m", "angelos.wiring.node", "--help").stdout
    doctor = json.loads(installed.run("angelos", "doctor", "--json").stdout)
    states = {check["name"]: check["state"] for check in doctor["checks"]}
    assert states["angelos[node]"] == "ok"
    assert states["angelos[server]"] == "--"
    assert installed.run("python", "-c", "import jupyter_server").returncode == 1
    assert installed.run("python", "-c", "import psycopg").returncode == 1


def assert_server(installed: Installed) -> None:
    """The main job, end to end."""
    demo = installed.run("angelos", "demo", "--json", timeout=600)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert json.loads(demo.stdout.splitlines()[-1])["ok"] is True
    assert_no_checkout(installed)
    with installed.up() as data:
        assert_daily_work(installed, data)


def assert_no_checkout(installed: Installed) -> None:
    """Nothing that Python imports lies in the checkout."""
    question = "import angelos, jupyter_ext, sys; print(*sys.path, angelos.__file__)"
    answer = installed.run("python", "-c", question)
    assert answer.returncode == 0, answer.stderr
    assert str(ROOT) not in answer.stdout


def assert_daily_work(installed: Installed, data: str) -> None:
    """Run, propose, look, back up, and restore beside the original."""

    def angelos(*args: str) -> str:
        done = installed.run("angelos", *args, "--data-dir", data)
        assert done.returncode == 0, f"{args}: {done.stdout}{done.stderr}"
        return done.stdout

    assert angelos("run", "-c", "print(6 * 7)") == "42\n"
    study = installed.folder / "work" / "study"
    shutil.copytree(ROOT / "examples" / "my-study", study)
    angelos("repo", "import", str(study), "--yes")
    change = installed.folder / "work" / "changed.py"
    change.write_text('"""Looked at."""\n')
    options = ("--path", "light/__init__.py", "--base", "main", "--json")
    proposal = json.loads(angelos("propose", str(change), *options))
    assert proposal["id"].startswith("prop-")
    assert json.loads(angelos("doctor", "--json"))["ok"] is True
    assert "journal " in angelos("status")
    archive = str(installed.folder / "backup.tar")
    made = json.loads(angelos("backup", archive, "--json"))
    copy = str(installed.folder / "copy")
    restored = installed.run("angelos", "restore", archive, copy, "--sha256", made["sha256"])
    assert restored.returncode == 0, restored.stderr
