"""What a cell tries, and the error that it gets: data for `test_kernel_attacks.py`.

`{...}` is filled with facts about the server that an attacker may have learnt. `attempt` is defined
in the kernel: it prints the name of the error with which its argument ends, or what it returns.
"""

from __future__ import annotations

from typing import NamedTuple

PREPARE = """
import ctypes, errno, fcntl, mmap, os, pathlib, shutil, signal, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def attempt(work):
    try:
        print(work())
    except OSError as error:
        print(errno.errorcode[error.errno])
def call(number, *args):
    if libc.syscall(number, *args) < 0:
        raise OSError(ctypes.get_errno(), "")
    return "done"
def connect(family, address, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as end:
        end.settimeout(2)
        end.connect(address)
        return "connected"
sockets = pathlib.Path("/run/angelos/s")
private = pathlib.Path(os.environ["ANGELOS_TOKEN_FILE"]).parent
"""


class Cell(NamedTuple):
    """One attack."""

    name: str
    code: str
    ends: str
    """What is printed; several, with `|` between, where file systems or tiers differ."""


def _denied(name: str, work: str, ends: str) -> Cell:
    return Cell(name, f"attempt(lambda: {work})", ends)


def _call(name: str, args: str, ends: str = "EPERM") -> Cell:
    return _denied(f"calls {name}", f"call({args})", ends)


SECRETS = (
    _denied("environment of the server", "open('/proc/{server}/environ').read()", "ENOENT"),
    _denied("memory of the server", "open('/proc/{server}/mem', 'rb').read(1)", "ENOENT"),
    Cell(
        "environments of all processes",
        "texts = []\n"
        "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "    for name in ('environ', 'cmdline'):\n"
        "        try: texts.append(open(f'/proc/{{pid}}/{{name}}').read())\n"
        "        except OSError: pass\n"
        "print(sum('owner' in text or '{folder}/jupyter' in text for text in texts))",
        "0",
    ),
    _denied("data directory", "os.listdir('{folder}')", "['workspace']"),
    _denied("cookie secret", "open('{folder}/jupyter/cookie_secret').read()", "ENOENT"),
    _denied("workspace", "os.listdir('{folder}/workspace')", "['study']"),
    _denied(
        "first process's root", "os.listdir('/proc/1/root{folder}')", "EACCES|['workspace']"
    ),
    _denied("home of the server", "os.listdir('{folder}/home')", "ENOENT"),
    _denied("passwords of the host", "open('/etc/shadow').read()", "ENOENT"),
    _denied("keys of root", "os.listdir('/root/.ssh')", "ENOENT"),
    _denied("token of another kernel", "open('{other}/a/token').read()", "ENOENT"),
    _denied("messages of another kernel", "open('{other}/a/connection.json').read()", "ENOENT"),
    _denied("folders of other kernels", "len(list(pathlib.Path('/tmp').glob('angelos-*')))", "1"),
    Cell(
        "inherited descriptors",
        "paths = [os.readlink(f'/proc/self/fd/{{fd}}') for fd in os.listdir('/proc/self/fd')\n"
        "         if os.path.lexists(f'/proc/self/fd/{{fd}}')]\n"
        "print([path for path in paths if '{folder}' in path])",
        "[]",
    ),
)  # fmt: skip

SOCKETS = (
    _denied("sockets of another kernel", "connect(1, '{other}/s/k-1')", "ENOENT"),
    _denied("API of another kernel", "connect(1, '{other}/a/api.sock')", "ENOENT"),
    _denied("where the server connects", "os.listdir(private.parent / 'c')", "ENOENT"),
    _denied("a store's socket", "connect(1, '{store}')", "ENOENT"),
    _denied("an abstract socket of the host", "connect(1, '\\0{abstract}')", "ECONNREFUSED"),
    _denied("link to a store's socket", "os.symlink('{store}', sockets / 'x')", "EACCES"),
    Cell(
        "link that is moved there",
        "os.symlink('{store}', '/tmp/x')\n"
        "attempt(lambda: os.rename('/tmp/x', sockets / 'x'))\nos.unlink('/tmp/x')",
        "EXDEV|EACCES",
    ),
    Cell(
        "link that is linked there",
        "os.symlink('{store}', '/tmp/x')\n"
        "attempt(lambda: os.link('/tmp/x', sockets / 'x', follow_symlinks=False))\n"
        "os.unlink('/tmp/x')",
        "EXDEV|EACCES",
    ),
    _denied("device among the sockets", "os.mknod(sockets / 'x', 0o20600, 0x103)", "EPERM"),
    _denied("replaces the API", "os.unlink(private / 'api.sock')", "EROFS"),
    _denied("replaces its token", "open(private / 'token', 'w')", "EROFS|EACCES"),
    _denied("port of the server", "connect(2, ('127.0.0.1', {port}))", "ECONNREFUSED"),
    _denied("network", "connect(2, ('192.0.2.1', 80))", "ENETUNREACH"),
    _denied("network of IPv6", "connect(10, ('2001:db8::1', 80))", "ENETUNREACH|EADDRNOTAVAIL"),
    _denied("name server", "connect(2, ('192.0.2.1', 53), socket.SOCK_DGRAM)", "ENETUNREACH"),
    _denied("metadata of a cloud", "connect(2, ('169.254.169.254', 80))", "ENETUNREACH"),
    _denied("raw socket", "socket.socket(2, socket.SOCK_RAW, 1)", "EPERM"),
    _denied("packet socket", "socket.socket(17, socket.SOCK_RAW)", "EPERM"),
    _denied("netlink", "socket.socket(16, socket.SOCK_RAW)", "ENOTSUP"),
    _denied("virtual machine socket", "socket.socket(40, 1)", "EPERM"),
    _denied("kernel's ciphers", "socket.socket(38, 5)", "EPERM"),
)  # fmt: skip

FILES = (
    _denied("writes the rules", "open('angelos.toml', 'w')", "EROFS|EACCES"),
    _denied("removes the rules", "os.unlink('angelos.toml')", "EBUSY"),
    _denied("moves the rules", "os.rename('angelos.toml', 'x')", "EBUSY"),
    Cell(
        "replaces the rules",
        "open('x', 'w').close()\nattempt(lambda: os.rename('x', 'angelos.toml'))\nos.unlink('x')",
        "EBUSY",
    ),
    _denied("makes a hook", "open('.git/config', 'w')", "EROFS|EACCES"),
    _denied("removes .git", "os.rmdir('.git')", "EBUSY"),
    _denied("moves .git", "os.rename('.git', 'x')", "EBUSY"),
    _denied("makes a policy", "open('.angelos/policy.cedar', 'w')", "EROFS|EACCES"),
    _denied("replaces policies", "os.rename('.angelos', 'x')", "EBUSY"),
    _denied("links out of the repository", "open('../escaped', 'w')", "EROFS|EACCES"),
    _denied("set-user-ID bit", "os.chmod('mine', 0o4755)", "EPERM"),
    _denied("set-group-ID bit", "os.fchmod(os.open('mine', 0), 0o2755)", "EPERM"),
    _denied("file with a set-user-ID bit", "os.open('suid', 0o101, 0o4755)", "EPERM"),
    _denied("gives a file away", "os.chown('mine', 0, 0)", "EPERM|EINVAL"),
    _denied("device file", "os.mknod('disk', 0o60600, 0x800)", "EPERM"),
    _denied("memory of the machine", "open('/dev/mem', 'rb')", "ENOENT"),
    _denied("disk of the machine", "open('/dev/sda', 'rb')", "ENOENT"),
    _denied("packages of the server", "open(__import__('angelos').__file__, 'a')", "EROFS|EACCES"),
    _denied("interpreter of the server", "open(sys.executable, 'ab')", "EROFS|EACCES"),
    _denied("programs of the host", "open('/usr/bin/env', 'ab')", "EROFS|EACCES"),
    _denied("settings of the kernel", "open('/proc/sys/kernel/hostname', 'w')", "EROFS|EACCES"),
    _denied("core of the kernel", "open('/proc/kcore', 'rb')", "EACCES|EPERM|ENOENT"),
    _denied("spares itself", "open('/proc/self/oom_score_adj', 'w')", "EACCES"),
)  # fmt: skip

CALLS = (
    _call("mount", "165, b'none', b'/tmp', b'tmpfs', 0, 0"),
    _call("umount2", "166, b'/proc', 2"),
    _call("pivot_root", "155, b'/', b'/tmp'"),
    _call("open_tree", "428, -100, b'/', 1", "EPERM|ENOSYS"),
    _call("unshare", "272, 0x10000000"),
    _call("setns", "308, 0, 0"),
    _call("clone into a namespace", "56, 0x10000011, 0, 0, 0, 0"),
    _call("clone3", "435, 0, 0", "ENOSYS"),
    _call("ptrace", "101, 16, 1, 0, 0"),
    _call("process_vm_readv", "310, 1, 0, 0, 0, 0, 0"),
    _call("bpf", "321, 0, 0, 0"),
    _call("perf_event_open", "298, 0, 0, -1, -1, 0"),
    _call("io_uring_setup", "425, 1, 0", "ENOSYS"),
    _call("userfaultfd", "323, 0"),
    _call("init_module", "175, 0, 0, 0"),
    _call("kexec_load", "246, 0, 0, 0, 0"),
    _call("add_key", "248, b'user', b'x', b'x', 1, -2"),
    _call("keyctl", "250, 0, 0"),
    _call("sethostname", "170, b'x', 1"),
    _call("settimeofday", "164, 0, 0"),
    _call("reboot", "169, 0, 0, 0, 0"),
    _call("chroot", "161, b'/tmp'"),
    _call("open_by_handle_at", "304, -100, 0, 0"),
    _denied("signals the server", "os.kill({server}, 9)", "ESRCH"),
    _denied("types into a terminal", "fcntl.ioctl(0, 0x5412, b'x')", "EPERM"),
)
HOGS = (
    Cell("memory", "hog = [bytearray(2**20) for _ in range(1000)]", "(oom)"),
    Cell(
        "shared memory", "open('/dev/shm/x', 'wb').write(bytes(2**29))", "(oom)|No space left"
    ),
    Cell(
        "processes",
        "import os\nwhile os.fork(): pass\nimport time; time.sleep(60)",
        "(pids)|(oom)",
    ),
)  # fmt: skip
"""Each ends its kernel, with the word for why; `ends` must be among what the cell shows."""

CATEGORIES = {
    "sensitive information": SECRETS,
    "file system": FILES,
    "external communication": SOCKETS,
    "dangerous operations": CALLS,
    "resource exhaustion": HOGS,
}
CELLS = (*SECRETS, *SOCKETS, *FILES, *CALLS)
