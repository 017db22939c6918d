"""Become another program that ends with its parent, perhaps as another user.

Run as a script (`python -I -S exec_child.py JSON`); the system never imports it for its code. It
execs, so the process id and start time of the caller's child stay those of the server. The JSON is
`{"parent", "signal", "uid", "binds": [[from, to]], "argv"}`.

`binds` are for root only: folders that `uid` may not enter (below /root, say) are bound to
places that it may enter, in a mount namespace of its own. No permissions are changed.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

PR_SET_PDEATHSIG = 1
CLONE_NEWNS = 0x00020000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18


def main() -> None:
    """Carry out the order in `sys.argv[1]`; does not return."""
    order = json.loads(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    if order["binds"]:
        _bind(libc, order["binds"])
    if order["uid"]:
        os.setgroups([])
        os.setresgid(order["uid"], order["uid"], order["uid"])
        os.setresuid(order["uid"], order["uid"], order["uid"])
    # prctl(2): a change of user clears the setting, so this comes after it. The parent may have
    # ended before the call; then no signal would ever come.
    _check(libc.prctl(PR_SET_PDEATHSIG, order["signal"], 0, 0, 0), "prctl")
    if os.getppid() != order["parent"]:
        sys.exit("the parent has ended")
    os.umask(0o077)
    os.execv(order["argv"][0], order["argv"])  # noqa: S606 - the purpose of this program


def _bind(libc: ctypes.CDLL, binds: list[list[str]]) -> None:
    _check(libc.unshare(CLONE_NEWNS), "unshare")
    _check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "make / private")
    # Open the sources before mounting the tmpfs, which may cover a folder that one of them lies
    # in, and after unshare, because the kernel binds only mounts of the caller's namespace.
    sources = [os.open(source, os.O_PATH | os.O_DIRECTORY) for source, _ in binds]
    root = os.path.dirname(binds[0][1]).encode()  # noqa: PTH120 - pathlib costs a start-up
    _check(libc.mount(b"tmpfs", root, b"tmpfs", MS_NOSUID | MS_NODEV, b"mode=755"), "mount tmpfs")
    for source, (_, target) in zip(sources, binds, strict=True):
        os.mkdir(target, 0o755)  # noqa: PTH102
        where = f"/proc/self/fd/{source}".encode()
        _check(libc.mount(where, target.encode(), None, MS_BIND | MS_REC, None), f"bind {target}")
        os.close(source)


def _check(result: int, call: str) -> None:
    if result != 0:
        sys.exit(f"{call}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()
