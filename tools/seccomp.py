"""Turn moby's default seccomp profile into `seccomp.json`: run by hand when the profile is updated.

    python tools/seccomp.py moby-default.json > angelos/node/sandbox/data/seccomp.json

Needs libseccomp (pyseccomp) for the numbers of the names; a node needs neither. The profile is
https://github.com/moby/profiles/blob/main/seccomp/default.json (Apache-2.0).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

REFUSE = """_sysctl acct add_key bpf chroot clock_settime create_module delete_module fanotify_init
fanotify_mark finit_module fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy init_module
io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl
lookup_dcookie mbind memfd_secret migrate_pages modify_ldt mount mount_setattr move_mount move_pages
name_to_handle_at nfsservctl open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root
process_madvise process_vm_readv process_vm_writev ptrace query_module quotactl quotactl_fd reboot
request_key set_mempolicy set_mempolicy_home_node setdomainname setfsgid setfsuid setgid setgroups
sethostname setns setregid setresgid setresuid setreuid settimeofday setuid swapoff swapon sysfs
syslog umount2 unshare uselib userfaultfd ustat vhangup""".split()  # noqa: SIM905
"""Refused and reported; `angelos/core/system_calls.py` says which of them weigh."""

MISSING = ["clone3"]
"""Answered with ENOSYS: programs fall back to the older call, whose arguments a filter can read."""

CHECKED = ["clone", "socket", "socketpair", "personality", "ioctl", "mknod", "mknodat"]
"""Allowed or reported by their arguments: see `angelos/node/sandbox/seccomp.py`."""

ARCHES = {"x86_64": "X86_64", "aarch64": "AARCH64"}
MOBY_ARCH = {"amd64", "arm64"}


def allowed(profile: dict[str, Any]) -> set[str]:
    """Return the names that the profile allows whatever the arguments and without capabilities."""
    names: set[str] = set()
    for rule in profile["syscalls"]:
        includes = rule.get("includes") or {}
        arches = set(includes.get("arches", MOBY_ARCH))
        if (
            rule["action"] == "SCMP_ACT_ALLOW"
            and not rule.get("args")
            and not includes.get("caps")
            and arches & MOBY_ARCH
        ):
            names |= set(rule["names"])
    return names - set(REFUSE) - set(MISSING) - set(CHECKED)


def main() -> None:
    """Write the data file to standard output."""
    import pyseccomp

    profile = json.loads(Path(sys.argv[1]).read_text())
    groups = {"allow": sorted(allowed(profile)), "refuse": REFUSE, "missing": MISSING,
              "checked": CHECKED}  # fmt: skip
    out: dict[str, Any] = {"source": "moby default profile, see tools/seccomp.py"}
    for arch, token in ARCHES.items():
        numbers = {
            group: {
                name: nr
                for name in names
                if (nr := pyseccomp.resolve_syscall(getattr(pyseccomp.Arch, token), name)) >= 0
            }
            for group, names in groups.items()
        }
        out[arch] = numbers
    rows = json.dumps(out, separators=(",", ":"), sort_keys=True)
    sys.stdout.write(rows.replace('"},', '"},\n').replace("},", "},\n") + "\n")


if __name__ == "__main__":
    main()
