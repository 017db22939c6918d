"""The attacks as data: what is run, and the word and evidence it must end with."""

from __future__ import annotations

from typing import Any, NamedTuple

from angelos.core.messages import Limits

SMALL = Limits(wall_s=15, cpu_s=10, memory_mb=96, pids=24, output_bytes=50_000, disk_mb=8)
SECRET = "a-secret-of-the-launcher"


class Attack(NamedTuple):
    """One program, and how its run must end."""

    name: str
    code: str
    status: str
    evidence: dict[str, Any] = {}
    says: str = ""
    """Must be in its output."""
    limits: Limits = SMALL
    exit_code: int | None = None


def syscall(number: int, *args: int, call: str = "") -> str:
    """Return a program that makes one system call and prints the errno."""
    words = ", ".join(map(str, (number, *args)))
    return (
        "import ctypes, errno, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        f"r = libc.syscall({words})\n"
        f"print({call!r}, r, errno.errorcode.get(ctypes.get_errno()), flush=True)\n"
        "sys.exit(1 if r < 0 else 0)\n"
    )


def refused(call: str, argument: str = "", source: str = "kernel") -> dict[str, Any]:
    row = {"call": call, "count": 1}
    return {"source": source, "refused": [row | ({"argument": argument} if argument else {})]}


def reported(name: str, code: str, row: dict[str, Any], says: str) -> Attack:
    """Return an attack that is an error: it proves nothing, and is in the evidence."""
    return Attack(name, code, "error", row, says, exit_code=1)


def hidden(name: str, code: str, says: str) -> Attack:
    """Return an attack on a file that is not there or closed: an error of its own, with a hint."""
    return Attack(name, code, "error", {"source": "exit"}, says, exit_code=1)


SOCKET = "import socket\nsocket.socket({}, {})\n"

PRIVILEGED = (
    (155, "pivot_root"),
    (167, "swapon"),
    (169, "reboot"),
    (175, "init_module"),
    (246, "kexec_load"),
    (304, "open_by_handle_at"),
    (308, "setns"),
    (163, "acct"),
    (164, "settimeofday"),
    (248, "add_key"),
    (310, "process_vm_readv"),
    (161, "chroot"),
    (172, "iopl"),
    (300, "fanotify_init"),
    (179, "quotactl"),
)

SECRETS = (
    hidden("shadow", "open('/etc/shadow')", "FileNotFoundError"),
    hidden("home", "import os; os.listdir('/home')", "FileNotFoundError"),
    hidden("host sys", "open('/sys/kernel/mm/ksm/run')", "FileNotFoundError"),
    hidden("init's environment", "open('/proc/1/environ')", "PermissionError"),
    hidden("memory of the kernel", "open('/proc/kcore', 'rb').read(1)", "Error"),
    hidden("log of the kernel", "open('/proc/kmsg').read(1)", "Error"),
    hidden("memory of the machine", "open('/dev/mem', 'rb')", "FileNotFoundError"),
    hidden("disks", "import glob\nopen((glob.glob('/dev/[sv]d*') or ['/dev/sda'])[0])", "Error"),
    hidden("the machine's identity", "open('/etc/machine-id')", "FileNotFoundError"),
    hidden("control groups", "import os; os.listdir('/sys/fs/cgroup')", "FileNotFoundError"),
    hidden("a link to what is hidden", "import os\nos.symlink('/etc/shadow', '/tmp/s')\n"
           "open('/tmp/s')", "FileNotFoundError"),
    hidden("up and out", "open('/tmp/../../../../etc/shadow')", "FileNotFoundError"),
)  # fmt: skip
"""Sensitive information."""

FILES = (
    hidden("kernel settings", "open('/proc/sys/kernel/core_pattern', 'w')", "Error"),
    hidden("write usr", "open('/usr/evil', 'w')", "Error"),
    hidden("write root", "open('/evil', 'w')", "Error"),
    hidden("write dev", "open('/dev/evil', 'w')", "Error"),
    hidden("magic keys", "open('/proc/sysrq-trigger', 'w').write('b')", "Error"),
    hidden("is killed last", "open('/proc/self/oom_score_adj', 'w').write('-999')", "Error"),
    hidden("the interpreter", "import sys; open(sys.executable, 'ab')", "Error"),
    hidden("the shim", "open('/run/angelos/shim.py', 'a')", "Error"),
    Attack(
        "device by mknod", "import os, stat\nos.mknod('/tmp/null', stat.S_IFCHR | 0o666, 0x103)",
        "denied", refused("mknodat", "character device"), "PermissionError", exit_code=1,
    ),
    Attack("a device", syscall(133, 0, 0o060600, 0, call="mknod"), "denied",
           refused("mknod", "block device"), "mknod -1 EPERM"),
)  # fmt: skip
"""The file system."""

NETWORK = (
    hidden("sockets of the machine", "import socket\n"
           "socket.socket(socket.AF_UNIX).connect('/run/docker.sock')", "FileNotFoundError"),
    Attack("inet", SOCKET.format("2", "1"), "error", refused("socket", "AF_INET", "exit")),
    Attack("inet6 udp", SOCKET.format("10", "2"), "error", refused("socket", "AF_INET6", "exit")),
    Attack("probes IPv6 and fails for another reason",
           "import socket\ntry:\n    socket.socket(10)\nexcept OSError:\n    pass\n1/0",
           "error", refused("socket", "AF_INET6", "exit"), "ZeroDivisionError", exit_code=1),
    Attack("vsock", SOCKET.format("40", "1"), "denied", refused("socket", "AF_VSOCK")),
    Attack("packet", SOCKET.format("17", "3"), "denied", refused("socket", "AF_PACKET")),
    Attack("netlink", SOCKET.format("16", "3"), "error",
           refused("socket", "AF_NETLINK", "exit")),
    Attack("alg", SOCKET.format("38", "5"), "denied", refused("socket", "AF_ALG")),
    Attack(
        "socket with a disguised family",
        syscall(41, 0x1_0000_0002, 1, 0, call="socket"), "error", says="socket -1 EPERM",
        evidence=refused("socket", "AF_INET", "exit"), exit_code=1,
    ),
    Attack(
        "probes for a network and copes",
        "import socket\ntry:\n    socket.socket()\nexcept OSError:\n    print('offline')\n",
        "ok", refused("socket", "AF_INET", "exit"),
        "offline", exit_code=0,
    ),
    Attack(
        "a thousand sockets",
        "import socket\nwhile True:\n    try:\n        socket.socket()\n"
        "    except OSError:\n        pass\n",
        "denied", {"source": "kernel"},
    ),
)  # fmt: skip
"""External communication."""

RESOURCES = (
    Attack("fork bomb", "import os\nwhile True:\n    os.fork()\n", "pids", {"limit": 24}),
    Attack(
        "thread bomb",
        "import threading, time\nwhile True:\n"
        "    threading.Thread(target=time.sleep, args=(60,)).start()\n",
        "pids", {"limit": 24},
    ),
    Attack(
        "fork bomb that detaches",
        "import os, signal\nsignal.signal(15, signal.SIG_IGN)\n"
        "while True:\n    try:\n        if os.fork() == 0:\n            os.setsid()\n"
        "    except OSError:\n        pass\n",
        "pids", {"limit": 24},
    ),
    Attack(
        "memory hog", "x = []\nwhile True:\n    x.append(bytearray(4_000_000))", "oom",
        {"limit_mb": 96},
    ),
    Attack(
        "memory hog in children",
        "import os, time\nfor _ in range(6):\n    if os.fork() == 0:\n"
        "        x = bytearray(30_000_000)\n        time.sleep(60)\ntime.sleep(60)\n",
        "oom", {"limit_mb": 96},
    ),
    Attack(
        "shared memory hog",
        "import mmap, time\nm = mmap.mmap(-1, 300_000_000)\n"
        "for i in range(0, 300_000_000, 4096):\n    m[i] = 1\ntime.sleep(60)\n",
        "oom", {"limit_mb": 96},
    ),
    Attack(
        "inodes",
        "import os\nfor n in range(600_000):\n    os.close(os.open(f'/tmp/{n}', os.O_CREAT))\n",
        "oom", {"limit_mb": 48}, limits=Limits(wall_s=20, cpu_s=20, memory_mb=48, disk_mb=48),
    ),
    Attack(
        "what waits in sockets",
        "import os, socket, time\nfor _ in range(16):\n    if os.fork() == 0:\n        held = []\n"
        "        while True:\n            a, b = socket.socketpair()\n"
        "            a.setblocking(False)\n"
        "            held.append((a, b))\n            try:\n                while True:\n"
        "                    a.send(bytes(65536))\n            except BlockingIOError:\n"
        "                pass\ntime.sleep(15)\n",
        "oom", {"limit_mb": 96}, limits=SMALL,
    ),
    Attack("flood", "while True:\n    print('x' * 999)", "output", {"limit_bytes": 50_000}),
    Attack(
        "flood on both",
        "import os\nwhile True:\n    os.write(1, b'a' * 99)\n    os.write(2, b'b' * 99)",
        "output", {"source": "node"},
    ),
    Attack(
        "fills its disk",
        "with open('/tmp/x', 'wb') as f:\n    while True:\n        f.write(bytes(1_000_000))",
        "error", {"source": "exit"}, "OSError", exit_code=1,
    ),
    Attack(
        "fills /dev/shm",
        "with open('/dev/shm/x', 'wb') as f:\n    while True:\n        f.write(bytes(1_000_000))",
        "oom", {"limit_mb": 96},
    ),
    Attack(
        "sleeps for ever", "import time\nwhile True:\n    time.sleep(9)", "timeout",
        {"source": "node", "limit_s": 0.5}, limits=Limits(wall_s=0.5),
    ),
    Attack(
        "computes for ever", "while True:\n    pass", "cpu", {"limit_s": 0.3},
        limits=Limits(wall_s=15, cpu_s=0.3),
    ),
    Attack(
        "computes for ever in children",
        "import os\nfor _ in range(3):\n    os.fork()\nwhile True:\n    pass", "cpu",
        {"limit_s": 0.5}, limits=Limits(wall_s=15, cpu_s=0.5),
    ),
    Attack(
        "computes for ever in children that nobody waits for",
        "import os, signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "while True:\n    if os.fork() == 0:\n"
        "        while time.process_time() < 0.1:\n            pass\n        os._exit(0)\n"
        "    try:\n        os.wait()\n    except ChildProcessError:\n        pass\n",
        "cpu", {"limit_s": 0.5}, limits=Limits(wall_s=15, cpu_s=0.5),
    ),
    Attack("policy of memory, again and again",
           "import ctypes\nf = ctypes.CDLL(None).syscall\nwhile True:\n    f(237, 0, 0, 0, 0)",
           "denied", {"source": "kernel"}, limits=Limits(wall_s=60, cpu_s=60)),
)  # fmt: skip
"""Exhaustion of resources."""

OPERATIONS = (
    Attack("ptrace", syscall(101, 0, 0, 0, 0, call="ptrace"), "denied", refused("ptrace")),
    Attack("keyctl", syscall(250, 0, -3, 0, call="keyctl"), "denied", refused("keyctl")),
    Attack("bpf", syscall(321, 0, 0, 0, call="bpf"), "denied", refused("bpf")),
    Attack("mount", syscall(165, 0, 0, 0, 0, 0, call="mount"), "denied", refused("mount")),
    Attack("namespace", syscall(272, 0x10000000, call="unshare"), "denied",
           refused("unshare", "CLONE_NEWUSER")),
    Attack("userfaultfd", syscall(323, 0, call="uffd"), "denied", refused("userfaultfd")),
    Attack("user namespace by clone", syscall(56, 0x10000000, 0, 0, 0, 0, call="clone"), "denied",
           refused("clone", "CLONE_NEWUSER"), "clone -1 EPERM", exit_code=1),
    Attack("the clock", syscall(227, 0, 0, call="clock"), "denied", refused("clock_settime"),
           "clock -1 EPERM"),
    Attack("the host's name", syscall(170, 0, 0, call="name"), "denied", refused("sethostname"),
           "name -1 EPERM"),
    Attack("a segment of its own", syscall(154, 1, 0, 0, call="ldt"), "denied",
           refused("modify_ldt"), "ldt -1 EPERM"),
    reported("secret memory", syscall(447, 0, call="secret"),
             refused("memfd_secret", "", "exit"), "secret -1 EPERM"),
    reported("memory policy", syscall(237, 0, 0, 0, 0, 0, 0, call="mbind"),
             refused("mbind", "", "exit"), "mbind -1 EPERM"),
    reported("another personality", syscall(135, 0x40000, call="pers"),
             refused("personality", "ADDR_NO_RANDOMIZE", "exit"), "pers -1 EPERM"),
    reported("another user", syscall(105, 0, call="setuid"),
             refused("setuid", "", "exit"), "setuid -1 EPERM"),
    Attack("clone3", syscall(435, 0, 0, call="clone3"), "error", says="clone3 -1 ENOSYS"),
    Attack("io_uring", syscall(425, 1, 0, call="uring"), "error",
           refused("io_uring_setup", "", "exit"), "uring -1 ENOSYS"),
    Attack("a call of the future", syscall(900, call="new"), "error", says="new -1 ENOSYS"),
    Attack("x32", syscall(0x40000000 | 39, call="x32"), "denied", {"source": "kernel"}),
    Attack("terminal injection", syscall(16, 0, 0x5412, 0, call="tiocsti"), "denied",
           refused("ioctl", "TIOCSTI"), "tiocsti -1 EPERM"),
    Attack("terminal injection, disguised", syscall(16, 0, 0x1_0000_5412, 0, call="tiocsti"),
           "denied", refused("ioctl", "TIOCSTI"), "tiocsti -1 EPERM"),
    reported("counters of the processor", syscall(298, 0, 0, 0, call="perf"),
             refused("perf_event_open", "", "exit"), "perf -1 EPERM"),
    *(Attack(f"calls {call}", syscall(number, 0, 0, 0, call=call), "denied", refused(call))
      for number, call in PRIVILEGED),
)  # fmt: skip
"""Dangerous operations."""

HONEST = (
    Attack("prints that it was refused",
           "import sys\nsys.exit(\"PermissionError: [Errno 13] Permission denied: '/etc/shadow'\")",
           "error", {"source": "exit"}, exit_code=1),
    Attack("no such module", "import surely_none", "error", says="hint: this runs in a box"),
    Attack("own missing file", "open('/tmp/none')", "error", {"source": "exit"}, exit_code=1),
    Attack("own error", "1/0", "error", {"source": "exit"}, "ZeroDivisionError", exit_code=1),
    Attack("own exit", "import sys; sys.exit(137)", "error", {"source": "exit"}, exit_code=137),
    Attack(
        "own signal", "import os; os.kill(os.getpid(), 9)", "error",
        {"source": "exit", "signal": "SIGKILL"}, exit_code=137,
    ),
    Attack("unix sockets work", "import asyncio\nasyncio.run(asyncio.sleep(0))", "ok"),
    Attack("an exit of 159", "import os; os._exit(159)", "error", {"source": "exit"}),
)  # fmt: skip
"""No attacks: what must not be taken for one."""

CATEGORIES = {
    "sensitive information": SECRETS,
    "file system": FILES,
    "external communication": NETWORK,
    "dangerous operations": OPERATIONS,
    "resource exhaustion": RESOURCES,
}
ATTACKS = tuple(attack for attacks in CATEGORIES.values() for attack in attacks)
