"""Each way in which a box was once found open, shut: one test each, in a real box."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from angelos.core.errors import InvalidInput
from angelos.core.messages import Limits, Status, Tier
from angelos.core.run_session import run_session
from angelos.core.runs import Exit, Output, RunSpec
from angelos.node.config import SandboxConfig
from angelos.node.sandbox.layout import BoxShape
from angelos.node.sandbox.sandbox import BubblewrapSandbox
from angelos.node.sandbox.verdict import MIB
from angelos.testing import need


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[BubblewrapSandbox]:
    monkeypatch.setenv("ANGELOS_SECRET", "of-the-launcher")
    async with BubblewrapSandbox(SandboxConfig(ready_boxes=0)) as box:
        need(box.tier in {Tier.full, Tier.reduced}, f"no boxes here: {box.reasons}")
        yield box


def opened(folder: Path) -> None:
    """Let the box's user, who is not root, read a folder."""
    folder.chmod(0o755)


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


async def run(sandbox: BubblewrapSandbox, code: str, **spec: object) -> tuple[Exit, str]:
    printed = b""
    run_spec = RunSpec(argv=(), code=code, limits=Limits(wall_s=20, disk_mb=4), **spec)  # type: ignore[arg-type]
    async for event in run_session(sandbox, run_spec):
        if isinstance(event, Output):
            printed += event.data
        else:
            return event, printed.decode()
    raise AssertionError("no end")


async def test_the_launchers_environment_is_not_inside(sandbox: BubblewrapSandbox) -> None:
    code = """
import glob, os
print(sorted(os.environ))
for path in glob.glob("/proc/[0-9]*/environ"):
    try:
        print(open(path, "rb").read())
    except PermissionError:
        pass
"""
    end, printed = await run(sandbox, code)
    assert end.status is Status.ok, printed
    assert "of-the-launcher" not in printed
    assert "ANGELOS" not in printed


async def test_bubblewrap_itself_was_started_with_an_empty_environment(
    sandbox: BubblewrapSandbox,
) -> None:
    """Inside, two more things hide it: who has namespaces is not dumpable, and Landlock."""
    need(os.geteuid() == 0, "only root reads the environment of one that is not dumpable")
    box = await sandbox._start(BoxShape())
    for pid in (box._process.pid, box._first):
        assert environment(pid).removeprefix(b"PWD=/\0") == b""


def environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_the_root_and_dev_are_mounted_read_only(sandbox: BubblewrapSandbox) -> None:
    """Landlock keeps a program from writing there as well; this is for where there is none."""
    code = """
for line in open("/proc/self/mountinfo"):
    place, options = line.split()[4:6]
    if not place.startswith(("/proc", "/tmp", "/dev/")):
        print(place, options.split(",")[0])
"""
    _, printed = await run(sandbox, code)
    options = dict(line.split() for line in printed.splitlines())
    assert {"/", "/dev", "/usr"} <= options.keys()
    assert set(options.values()) == {"ro"}, options


async def test_command_lines_show_no_flags_and_no_path_of_the_task(
    sandbox: BubblewrapSandbox, tmp_path: Path
) -> None:
    opened(tmp_path)
    code = """
import glob
for path in glob.glob("/proc/[0-9]*/cmdline"):
    print(open(path).read().split(chr(0)))
"""
    end, printed = await run(sandbox, code, read_only={"/work": str(tmp_path)}, chdir="/work")
    assert end.status is Status.ok, printed
    assert str(tmp_path) not in printed
    assert "--ro-bind" not in printed
    assert "'bwrap', '--args'" in printed


async def test_no_descriptor_is_inherited(sandbox: BubblewrapSandbox) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)  # noqa: FBT003
    try:
        code = "import os\nprint([int(n) for n in os.listdir('/proc/self/fd') if int(n) > 2])"
        _, printed = await run(sandbox, code)
        opened = json.loads(printed)
        assert len(opened) == 1, "only the one that lists the folder"
    finally:
        os.close(reader)
        os.close(writer)


async def test_only_tmp_can_be_written_and_only_so_much(sandbox: BubblewrapSandbox) -> None:
    code = """
import os
for folder, _, _ in os.walk("/"):
    if folder.startswith(("/proc", "/tmp", "/usr", "/dev/shm")):
        continue
    try:
        open(folder + "/x", "w")
        print("WRITABLE", folder)
    except OSError as error:
        pass
size = os.statvfs("/tmp").f_blocks * os.statvfs("/tmp").f_frsize
print(size, os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize)
"""
    end, printed = await run(sandbox, code)
    assert end.status is Status.ok, printed
    assert printed == f"{4 * MIB} {(Limits().memory_mb + 1) * MIB}\n"


async def test_orphans_are_reaped(sandbox: BubblewrapSandbox) -> None:
    code = """
import glob, os, time
if os.fork() == 0:
    for _ in range(5):
        os.fork()
    os._exit(0)
os.wait()
for _ in range(1000):
    if len(glob.glob("/proc/[0-9]*")) == 2:
        print("reaped")
        break
    time.sleep(0.01)
"""
    _, printed = await run(sandbox, code)
    assert printed == "reaped\n"


async def test_root_in_the_box_is_nobody_outside(
    sandbox: BubblewrapSandbox, tmp_path: Path
) -> None:
    need(os.geteuid() == 0, "only root could give more than it should")
    (tmp_path / "secret").write_text("of root")
    (tmp_path / "secret").chmod(0o600)
    opened(tmp_path)
    end, printed = await run(sandbox, "open('/work/secret')", read_only={"/work": str(tmp_path)})
    assert end.status is Status.error, printed
    assert "Permission denied" in printed


async def test_a_folder_that_only_root_reaches_can_be_bound(
    sandbox: BubblewrapSandbox, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    (closed / "checkout").mkdir(parents=True)
    (closed / "checkout" / "mod.py").write_text("VALUE = 42\n")
    closed.chmod(0o700)
    end, printed = await run(
        sandbox,
        "import mod, os; print(mod.VALUE, os.getcwd())",
        read_only={"/work": str(closed / "checkout")},
        chdir="/work",
    )
    assert (end.status, printed) == (Status.ok, "42 /work\n")
    assert "angelos-" not in mounts(), "the machine never sees the launcher's mounts"


async def test_the_box_has_no_network_no_privilege_and_no_neighbours(
    sandbox: BubblewrapSandbox,
) -> None:
    code = """
import glob, os, re
status = open("/proc/self/status").read()
print(re.search("CapEff:.*", status)[0], re.search("NoNewPrivs:.*", status)[0])
print(re.search("Seccomp:.*", status)[0], os.getuid(), os.getgid(), os.uname().nodename)
print([line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]])
print(len(glob.glob("/proc/[0-9]*")))
"""
    _, printed = await run(sandbox, code)
    assert printed.split() == (
        [
            "CapEff:",
            "0000000000000000",
            "NoNewPrivs:",
            "1",
            "Seccomp:",
            "2",
            "1000",
            "1000",
            "box",
            "['lo']",
            "2",
        ]
    )


async def test_landlock_holds_inside(sandbox: BubblewrapSandbox) -> None:
    need(not any("Landlock" in reason for reason in sandbox.reasons), "no Landlock here")
    end, printed = await run(sandbox, "import os; os.listdir('/')")
    assert end.status is Status.error, printed
    assert "Permission denied" in printed


@pytest.mark.parametrize("inside", ["/", "/usr", "/workshop", "/work/../etc", "/tmp/x"])
async def test_a_task_cannot_bind_over_the_system(
    sandbox: BubblewrapSandbox, inside: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput):
        await run(sandbox, "1", read_only={inside: str(tmp_path)})


@pytest.mark.parametrize("boxed", [True, False], ids=["box", "no box"])
def test_a_killed_node_leaves_no_box(*, boxed: bool) -> None:
    # Without control groups: there the next node to start would sweep up what is left.
    code = (
        "import asyncio, os, sys\n"
        "from angelos.core.messages import Limits\n"
        "from angelos.core.run_session import run_session\n"
        "from angelos.core.runs import RunSpec\n"
        "from angelos.node.config import SandboxConfig\n"
        "from angelos.node.sandbox.proc import tree\n"
        "from angelos.core.errors import Unavailable\n"
        "from angelos.node.sandbox import sandbox as module\n"
        "from angelos.node.sandbox.sandbox import BubblewrapSandbox\n"
        "def missing():\n"
        "    raise Unavailable('none')\n"
        f"module.find_bwrap = module.find_bwrap if {boxed} else missing\n"
        "async def main():\n"
        f"    config = SandboxConfig(use_cgroups=False, allow_unsandboxed={not boxed})\n"
        "    async with BubblewrapSandbox(config) as sandbox:\n"
        "        code = 'import os, time\\nos.fork()\\nos.setsid()\\nprint(1)\\ntime.sleep(99)'\n"
        "        spec = RunSpec(argv=(), code=code, limits=Limits())\n"
        "        async for event in run_session(sandbox, spec):\n"
        "            print(*tree(os.getpid()), flush=True)\n"
        "            os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    pids = [int(word) for word in done.stdout.split()][1:]
    need(pids, f"no boxes here: {done.stderr[-300:]}")
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ready, _, _ = select.select([pidfd], [], [], 20)
        os.close(pidfd)
        assert ready, f"{pid} is still alive"
