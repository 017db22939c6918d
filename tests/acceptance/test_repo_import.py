"""`angelos repo import` of a folder without an `angelos.toml`: what it offers, writes and says."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from angelos.client import Angelos
from angelos.core.repository import NewText
from tests.acceptance.up_process import cli, running

STUDY = Path(__file__).parents[2] / "examples" / "my-study"


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """One running system for all of them."""
    with running(tmp_path_factory.mktemp("import") / "data") as up:
        yield up


@pytest.fixture
def folder(tmp_path):
    """A study without an `angelos.toml`, of a name of its own."""
    folder = tmp_path / tmp_path.name.replace("_", "-")[:40]
    shutil.copytree(STUDY, folder, ignore=shutil.ignore_patterns("__pycache__", "angelos.toml"))
    return folder


async def toml_of(system, repo: str) -> str:
    async with Angelos.connect(system.data.root) as owner:
        return (await owner.repos[repo].read("angelos.toml")).decode()


def answer(command: list[str], *answers: str) -> tuple[int, str]:
    """Run a command on a terminal and answer its questions; return its exit code and output."""
    terminal, inside = pty.openpty()
    process = subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside)
    os.close(inside)
    output, left = b"", list(answers)
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        output += piece
        if left and output.rstrip().endswith((b"[Y/n]:", b"[y/N]:")):
            os.write(terminal, left.pop(0).encode() + b"\n")
            output += b"\n"
    os.close(terminal)
    return process.wait(60), output.decode()


def test_without_a_terminal_nothing_is_made_and_that_is_said(system, folder):
    done = cli(system.data.root, "repo", "import", str(folder))
    assert done.returncode == 0, done.stderr
    assert "has no angelos.toml" in done.stderr
    assert "--config generate" in done.stderr
    assert not (folder / "angelos.toml").exists()
    silent = cli(system.data.root, "repo", "import", str(folder), "--config", "none", "--name", "b")
    assert (silent.returncode, silent.stderr) == (0, "")


async def test_what_is_generated_is_shown_and_is_in_the_folder_and_on_main(system, folder):
    done = cli(system.data.root, "repo", "import", str(folder), "--yes")
    assert done.returncode == 0, done.stderr
    text = (folder / "angelos.toml").read_text()
    assert text in done.stderr
    assert text == await toml_of(system, folder.name)
    assert "\n# solo = true" in text


@pytest.mark.parametrize(
    ("answers", "line"), [(["", "y"], "\nsolo = true"), (["y", ""], "\n# solo = true")]
)
async def test_on_a_terminal_it_asks(system, folder, answers, line):
    angelos = [sys.executable, "-m", "angelos", "repo", "import", str(folder)]
    code, output = answer([*angelos, "--data-dir", str(system.data.root)], *answers)
    assert code == 0, output
    assert "re-runs analysis.ipynb and runs pytest" in output
    assert "your own and your agents' proposals" in output
    assert line in await toml_of(system, folder.name)


def test_a_no_makes_none(system, folder):
    angelos = [sys.executable, "-m", "angelos", "repo", "import", str(folder)]
    code, output = answer([*angelos, "--data-dir", str(system.data.root)], "n")
    assert code == 0, output
    assert not (folder / "angelos.toml").exists()


def test_when_the_import_is_refused_nothing_is_written(system, folder):
    once = cli(system.data.root, "repo", "import", str(folder), "--config", "none")
    assert once.returncode == 0
    again = cli(system.data.root, "repo", "import", str(folder), "--solo")
    assert again.returncode == 1
    assert not (folder / "angelos.toml").exists()


def test_a_file_that_is_there_is_never_replaced(system, folder):
    (folder / "angelos.toml").write_text("# mine\n")
    done = cli(system.data.root, "repo", "import", str(folder), "--solo")
    assert done.returncode == 2
    assert "has an angelos.toml already" in done.stderr
    assert (folder / "angelos.toml").read_text() == "# mine\n"


@pytest.mark.slow
async def test_the_generated_tests_pass_and_an_agents_proposal_waits_for_its_owner(
    system, folder, tmp_path
):
    assert cli(system.data.root, "repo", "import", str(folder), "--solo").returncode == 0
    token = cli(system.data.root, "agent", "add", "ada").stdout
    joined = cli(system.data.root, "agent", "join", "-", str(tmp_path / "ada"), input=token)
    assert joined.returncode == 0, joined.stderr
    async with Angelos.with_certificate(tmp_path / "ada") as ada:
        edit = NewText(path="notes.txt", text="a note\n")
        proposal = await ada.repos[folder.name].propose([edit], base="main", message="A note")
        view = await proposal.settled()
    assert view.state == "waiting", view.reason
    assert {(step.name, step.status) for step in view.steps} == {
        ("analysis", "ok"),
        ("tests", "ok"),
    }
    done = cli(system.data.root, "proposal", "approve", view.id, "--wait", "60")
    assert "promoted" in done.stdout, done


def ask(system, *arguments: str, code: int = 0):
    done = cli(system.data.root, "repo", *arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


async def test_history_is_read_and_made_on_the_command_line(system, folder):
    assert cli(system.data.root, "repo", "import", str(folder), "--yes").returncode == 0
    repo = ("--repo", folder.name)
    (first,) = ask(system, "log", *repo)["commits"]
    made = ask(system, "branch", "ada/x", "--at", first["id"][:8], *repo)
    assert made == {"name": "ada/x", "revision": first["id"], "owner": "person/owner"}
    async with Angelos.connect(system.data.root) as owner:
        study = owner.repos[folder.name]
        edit = NewText(path="new.txt", text="one\ntwo\n")
        commit = await study.commit("ada/x", [edit], expected=first["id"], message="New")
    assert [c["id"] for c in ask(system, "log", "--branch", "ada/x", *repo)["commits"]] == [
        commit.revision,
        first["id"],
    ]
    (change,) = ask(system, "diff", "ada/x", *repo)["changes"]
    assert (change["path"], change["before"]) == ("new.txt", None)
    shown = cli(system.data.root, "repo", "diff", "main", "ada/x", *repo)
    assert "added new.txt" in shown.stdout
    assert "+two" in shown.stdout
    blame = cli(system.data.root, "repo", "blame", "new.txt", "--revision", "ada/x", *repo)
    assert blame.stdout.splitlines()[2].split()[:2] == [commit.revision[:12], "person/owner"]
    proposal = ask(system, "cherry-pick", commit.revision[:10], *repo)
    assert [c["path"] for c in proposal["changes"]] == ["new.txt"]
    assert ask(system, "branch", "ada/y", *repo)["revision"] == first["id"]
    picked = ask(system, "cherry-pick", "ada/x", "--onto", "ada/y", *repo)
    assert picked["branch"] == "ada/y"
    refused = ask(system, "branch", "dev", "-d", *repo, code=1)
    assert refused["code"] == "refused"
    unknown = ask(system, "log", "--branch", "nowhere", *repo, code=2)
    assert unknown["code"] == "not-found"
    assert ask(system, "branch", "ada/y", "-d", *repo)["deleted"]["revision"] == picked["revision"]
    names = cli(system.data.root, "repo", "branch", "-q", *repo).stdout.split()
    assert names == ["ada/x", "dev", "main"]
    taken_back = ask(system, "revert", proposal["id"], *repo[:0], code=1)
    assert taken_back["code"] == "conflict"  # it waits, so nothing of it is in dev


def test_a_repository_is_exported_and_verified_by_git(system, folder):
    assert cli(system.data.root, "repo", "import", str(folder), "--yes").returncode == 0
    target = folder.parent / "exported"
    exported = ask(system, "export", folder.name, str(target))
    subprocess.run(shlex.split(exported["config"]), check=True)
    verify = ["git", "-C", str(target), "verify-commit", "main", "dev"]
    head = subprocess.run(verify, capture_output=True, check=True)
    assert b'Good "git" signature' in head.stderr
    assert (target / "angelos.toml").exists()
    again = ask(system, "export", folder.name, str(target), code=2)
    assert "exists already" in again["detail"]


def test_a_history_is_imported_and_exported_the_same(system, tmp_path):
    source, target = tmp_path / "old.git", tmp_path / "new"
    source.mkdir()
    git(source, "init", "-q", "-b", "master")
    (source / "picture").write_bytes(b"\x89PNG\0")
    (source / "link").symlink_to("picture")
    git(source, "add", "-A")
    git(source, "commit", "-q", "-m", "first")
    git(source, "tag", "-a", "v1", "-m", "one")
    imported = ask(system, "import", str(source), "--history", "--name", tmp_path.name)
    assert imported["head"] == git(source, "rev-parse", "HEAD")
    assert imported["references"] == 1
    ask(system, "export", tmp_path.name, str(target))
    for name in ("v1", "HEAD^{tree}", "HEAD"):
        assert git(target, "rev-parse", name) == git(source, "rev-parse", name)
    assert (target / "link").readlink() == Path("picture")
    git(source, "update-index", "--add", "--cacheinfo", f"160000,{imported['head']},sub")
    git(source, "commit", "-q", "-m", "a submodule")
    refused = ask(system, "import", str(source), "--history", "--name", "other", code=1)
    assert (refused["code"], refused["extra"]["names"]) == ("refused", ["sub (a submodule)"])
    missing = ask(system, "import", str(tmp_path / "nothing"), "--history", code=2)
    assert missing["code"] == "invalid-input"


def git(folder: Path, *arguments: str) -> str:
    """Return what git says, with a home of its own."""
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(folder.parent)},
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().strip()


@pytest.fixture
def remote(system, folder):
    """Import the folder; return the URL from which its owner clones it, and its name."""
    assert cli(system.data.root, "repo", "import", str(folder), "--yes").returncode == 0
    running = json.loads((system.data.root / "system.json").read_text())
    base = running["url"].rstrip("/").replace("://", f"://x:{running['token']}@")
    return f"{base}/angelgit/{folder.name}.git", folder.name


def pushed(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Return how git pushes."""
    return subprocess.run(
        ["git", "-C", str(folder), "push", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(folder.parent)},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )


def test_git_clones_fetches_and_pushes(system, remote, tmp_path):
    url, name = remote
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", url, str(clone))
    assert (clone / "angelos.toml").exists()
    assert git(clone, "fsck", "--strict") == ""
    main = git(clone, "rev-parse", "HEAD")

    (clone / "new.py").write_text("x = 1\n")
    (clone / "data.bin").write_bytes(b"\0\xff")
    git(clone, "add", "-A")
    git(clone, "commit", "-q", "-m", "Add two files")
    own = pushed(clone, "origin", "HEAD:refs/heads/ada/x")
    assert own.returncode == 0, own.stderr
    assert "ada/x is at" in own.stderr
    head = git(clone, "rev-parse", "HEAD")
    (commit, *_) = ask(system, "log", "--branch", "ada/x", "--repo", name)["commits"]
    assert (commit["git"], commit["message"]) == (head, "Add two files\n")
    (change,) = ask(system, "diff", "main", "ada/x", "--path", "new.py", "--repo", name)["changes"]
    assert "+x = 1" in change["diff"]

    # Rewritten, it is moved by force alone.
    git(clone, "commit", "-q", "--amend", "-m", "Add two files, amended")
    assert pushed(clone, "origin", "HEAD:refs/heads/ada/x").returncode == 1
    assert pushed(clone, "-f", "origin", "HEAD:refs/heads/ada/x").returncode == 0
    for ref in ("main", "dev", "proposals/x"):
        refused = pushed(clone, "-f", "origin", f"HEAD:refs/heads/{ref}")
        assert refused.returncode == 1
        assert "push to refs/for/main instead" in refused.stderr

    proposal = proposed(clone)
    assert proposed(clone, "It had been pushed before") == proposal
    (clone / "new.py").write_text("x = 2\n")
    git(clone, "commit", "-q", "-a", "--amend", "-m", "Add two files, again")
    second = proposed(clone, f"It replaces {proposal}")
    shown = json.loads(cli(system.data.root, "proposal", "show", proposal, "--json").stdout)
    assert (shown["state"], shown["reason"]) == ("rejected", f"Replaced by {second}")
    shown = json.loads(cli(system.data.root, "proposal", "show", second, "--json").stdout)
    assert {c["path"] for c in shown["changes"]} == {"new.py", "data.bin"}

    assert git(clone, "ls-remote", "origin", "refs/heads/main").split()[0] == main
    assert pushed(clone, "origin", ":refs/heads/ada/x").returncode == 0
    assert git(clone, "ls-remote", "origin", "refs/heads/ada/x") == ""


def proposed(clone: Path, words: str = "Proposal prop-") -> str:
    """Push to `refs/for/main`; return the id of the proposal."""
    done = pushed(clone, "origin", "HEAD:refs/for/main")
    assert done.returncode == 0, done.stderr
    assert words in done.stderr
    return re.search(r"Proposal (prop-[0-9a-f]{32})", done.stderr)[1]


def test_strangers_and_bad_requests_are_refused(remote, tmp_path):
    url, _ = remote
    wrong = re.sub(r"://x:[^@]+@", "://x:wrong@", url)
    for address in (wrong, url.replace(".git", "-none.git")):
        done = subprocess.run(
            ["git", "clone", "-q", address, str(tmp_path / "no")],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_TERMINAL_PROMPT": "0"},
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode
    for path, body, kind, status in (
        ("info/refs?service=git-upload-pack", None, "", 200),
        ("info/refs?service=git-shell", None, "", 404),
        ("info/refs", None, "", 404),
        ("HEAD", None, "", 404),
        ("git-upload-pack", b"0032want " + b"f" * 40 + b"\n00000009done\n", "upload", 400),
        ("git-upload-pack", b"junk", "upload", 400),
        ("git-receive-pack", b"junk", "receive", 400),
        ("git-receive-pack", b"0000", "text", 404),
    ):
        assert status_of(f"{url}/{path}", body, kind) == status, path


def status_of(url: str, body: bytes | None, kind: str) -> int:
    """Return how a request is answered."""
    password, address = re.search(r"x:([^@]+)@(.*)", url).groups()
    token = base64.b64encode(f"x:{password}".encode()).decode()
    request = urllib.request.Request(f"http://{address}", data=body)
    request.add_header("Authorization", f"Basic {token}")
    request.add_header("Content-Type", f"application/x-git-{kind}-pack-request")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


async def test_bisect_names_the_commit_that_broke_it(system, folder):
    assert cli(system.data.root, "repo", "import", str(folder), "--yes").returncode == 0
    async with Angelos.connect(system.data.root) as owner:
        study = owner.repos[folder.name]
        head = (await study.create_branch("ada/b")).revision
        made = []
        for name in ("one", "broken", "two", "three"):
            edit = NewText(path=f"{name}.txt", text=f"{name}\n")
            commit = await study.commit("ada/b", [edit], expected=head, message=name)
            made.append(head := commit.revision)
    check = "import os, sys; sys.exit(os.path.exists('broken.txt'))"
    repo = ("--repo", folder.name, "--good", "main", "--bad", "ada/b", "--json")
    repo += ("--data-dir", str(system.data.root))  # what comes last belongs to the command
    done = cli(system.data.root, "repo", "bisect", *repo, "--", "python", "-c", check)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["first"]["id"], answer["tried"]) == (made[1], 4)
    done = cli(system.data.root, "repo", "bisect", *repo, "--", "python", "-c", "1")
    assert done.returncode == 2
    assert "does not fail" in done.stderr
