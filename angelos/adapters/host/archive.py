"""The file of a backup: a compressed tar that says what it is and proves that it is whole.

    angelos-backup.json     first: format, versions, time
    data/...                files of the data directory
    postgres.dump           for pg_restore
    valkey.rdb              for Valkey
    manifest.json           size and SHA-256 of each file
    signature.json          last: by the key of the system that made it; without it it was cut off

`tar -xzf` and the stores' own tools open it without AngelOS.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, TypeVar

import msgspec

from angelos.core.errors import InvalidInput
from angelos.core.signing import SigningKey, VerifyKey

T = TypeVar("T")
ARCHIVE_FORMAT = 2
HEADER, MANIFEST, SIGNATURE = "angelos-backup.json", "manifest.json", "signature.json"
_LEVEL = 1
_PIECE = 1 << 20
_IN_MEMORY = 8 << 20
_MAX_HEADER = 64 << 10
_MAX_MANIFEST = 256 << 20
_CONTEXT = b"angelos.backup.v1"


class ArchiveHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup is."""

    format: int = ARCHIVE_FORMAT
    version: str
    """Of AngelOS."""
    data_format: int
    """Of the data directory."""
    at: float
    """Unix seconds of the moment that it shows."""


class ArchivedFile(msgspec.Struct, frozen=True):
    """One regular file; a name's bytes are read as Latin-1."""

    name: str
    size: int
    sha256: str


class BackupManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What must be there after restoring."""

    files: tuple[ArchivedFile, ...]
    keys: int
    """In the database of Valkey, those that expire left out."""
    database: int = 0
    """Its number."""
    entries: int
    """Of the journal."""
    newest: str
    """Offset of its last one."""
    checkpoint: str
    """The audit log's last signed note before the moment."""


class ArchiveSignature(msgspec.Struct, frozen=True, kw_only=True):
    """A signature over header and manifest, and so over every file."""

    key: bytes
    signature: bytes

    @classmethod
    def make(cls, key: SigningKey, header: bytes, manifest: bytes) -> ArchiveSignature:
        """Return a key's signature over header and manifest as they are in the archive."""
        body = _signed_body(header, manifest)
        return cls(key=key.public.raw, signature=key.sign(_CONTEXT, body))

    def holds(self, header: bytes, manifest: bytes) -> bool:
        """Return whether it is its key's for these two."""
        body = _signed_body(header, manifest)
        return VerifyKey(self.key).verify(_CONTEXT, body, self.signature)


def _signed_body(header: bytes, manifest: bytes) -> bytes:
    return hashlib.sha256(header).digest() + hashlib.sha256(manifest).digest()


class Extracted(NamedTuple):
    """What an archive said and proved."""

    header: ArchiveHeader
    manifest: BackupManifest
    key: str
    """In hex, the public key whose signature was verified; whose key that is, it cannot say."""
    sha256: str
    """Of the archive."""


class ArchiveWriter:
    """Adds members; `sign` makes the archive valid."""

    def __init__(self, tar: tarfile.TarFile, header: bytes) -> None:
        self._tar = tar
        self._header = header
        self.files: list[ArchivedFile] = []

    def add_text(self, name: str, body: bytes) -> None:
        """Add a small file that is not listed in the manifest."""
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(body), 0o600
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
            file.write(body)
            file.seek(0)
            self._tar.addfile(info, file)

    def sign(self, manifest: BackupManifest, key: SigningKey) -> None:
        """Add manifest and signature, which end the archive."""
        body = msgspec.json.encode(manifest)
        self.add_text(MANIFEST, body)
        signature = ArchiveSignature.make(key, self._header, body)
        self.add_text(SIGNATURE, msgspec.json.encode(signature))

    def add_file(self, name: str, path: Path) -> None:
        """Add a regular file as it is now; somebody may write it, or remove it, meanwhile."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return
        with os.fdopen(fd, "rb") as source, tempfile.SpooledTemporaryFile(_IN_MEMORY) as copy:
            digest, size = hashlib.sha256(), 0
            while piece := source.read(_PIECE):
                digest.update(piece)
                copy.write(piece)
                size += len(piece)
            copy.seek(0)
            info = _info(name, os.fstat(fd))
            info.size = size
            self._tar.addfile(info, copy)
        key = os.fsencode(name).decode("latin-1")
        self.files.append(ArchivedFile(key, size, digest.hexdigest()))

    def add_tree(self, name: str, root: Path, without: frozenset[str]) -> None:
        """Add a folder: files, folders and links; no sockets, and nothing named in `without`.

        Args:
            name: The folder's name in the archive.
            root: The folder.
            without: Paths relative to it.
        """
        for folder, folders, files in os.walk(root):
            place = Path(folder).relative_to(root)
            folders[:] = sorted(f for f in folders if str(place / f) not in without)
            for entry in [*folders, *sorted(f for f in files if str(place / f) not in without)]:
                path = Path(folder) / entry
                with suppress(FileNotFoundError):  # removed meanwhile
                    self._add(str(PurePosixPath(name, *place.parts, entry)), path)

    def _add(self, name: str, path: Path) -> None:
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            self.add_file(name, path)
            return
        info = _info(name, status)
        if stat.S_ISLNK(status.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)  # noqa: PTH115
        elif stat.S_ISDIR(status.st_mode):
            info.type = tarfile.DIRTYPE
        else:
            return
        self._tar.addfile(info)


@contextmanager
def new_archive(path: Path, header: ArchiveHeader) -> Iterator[ArchiveWriter]:
    """Yield the writer of an archive that appears, complete, when the block ends without error.

    Raises:
        InvalidInput: There is a file of this name already.
    """
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with (
            os.fdopen(fd, "wb") as file,
            gzip.GzipFile(fileobj=file, mode="wb", compresslevel=_LEVEL) as packed,
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
        ):
            first = msgspec.json.encode(header)
            writer = ArchiveWriter(tar, first)
            writer.add_text(HEADER, first)
            yield writer
        with open(temporary, "rb") as file:  # noqa: PTH123
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # never replaces a file, as a rename would
        except FileExistsError:
            raise InvalidInput(f"{path} exists; nothing was changed.") from None
    finally:
        Path(temporary).unlink(missing_ok=True)


def extract(
    path: Path, folder: Path, formats: tuple[int, int], left_out: Collection[str] = ()
) -> Extracted:
    """Unpack an archive into an empty folder and check every file and the signature.

    Args:
        path: The archive.
        folder: Where its members come to lie.
        formats: The formats of archive and data directory that can be read.
        left_out: What no backup holds, by path below its trees; an archive with it is refused.

    Raises:
        InvalidInput: It is no backup, of another format, cut off or damaged, or larger than the
            room on the disk.
    """
    try:
        with (
            path.open("rb") as plain,
            _Hashed(plain) as file,
            gzip.GzipFile(fileobj=file, mode="rb") as packed,
            tarfile.open(fileobj=packed, mode="r|") as tar,
        ):
            header, manifest, key = _Extraction(path, folder, tar, left_out).run(formats)
            while packed.read(_PIECE):  # the checksum comes after the last block
                pass
            while file.read(_PIECE):
                pass
            return Extracted(header, manifest, key, file.digest.hexdigest())
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, f"it was cut off or changed ({error})") from error


class _Hashed(io.RawIOBase):
    """A file that is hashed as it is read, so that what was hashed is what was unpacked."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        piece = self._file.read(size)
        self.digest.update(piece)
        return piece


class _Extraction:
    def __init__(
        self, path: Path, folder: Path, tar: tarfile.TarFile, left_out: Collection[str]
    ) -> None:
        self._left_out = left_out
        self._total, self._room = 0, shutil.disk_usage(folder.parent).free
        self._path = path
        self._folder = folder
        self._tar = tar
        self._files: list[ArchivedFile] = []
        self._links: list[tuple[Path, str]] = []

    def run(self, formats: tuple[int, int]) -> tuple[ArchiveHeader, BackupManifest, str]:
        first = self._tar.next()
        if first is None or first.name != HEADER:
            raise _damaged(self._path, "it is no backup of AngelOS")
        header_text = self._text(first, _MAX_HEADER)
        header = self._decode(HEADER, header_text, ArchiveHeader)
        _check_formats(self._path, header, formats)
        while (member := self._tar.next()) is not None and member.name != MANIFEST:
            self._extract(member)
        if member is None:
            raise _damaged(self._path, "its end is missing: it was cut off")
        manifest_text = self._text(member, _MAX_MANIFEST)
        manifest = self._decode(MANIFEST, manifest_text, BackupManifest)
        signature = self._signature()
        if self._tar.next() is not None:
            raise _damaged(self._path, "something follows its end")
        if sorted(self._files, key=_name) != sorted(manifest.files, key=_name):
            raise _damaged(self._path, "its files are not those of its manifest")
        if not signature.holds(header_text, manifest_text):
            raise _damaged(self._path, "its signature is not of what it holds")
        for place, target in self._links:  # last, so that nothing is written through one
            place.symlink_to(target)
        return header, manifest, signature.key.hex()

    def _signature(self) -> ArchiveSignature:
        member = self._tar.next()
        if member is None:
            raise _damaged(self._path, "its end is missing: it was cut off")
        if member.name != SIGNATURE:
            raise _damaged(self._path, "no signature follows its manifest")
        return self._decode(SIGNATURE, self._text(member, _MAX_HEADER), ArchiveSignature)

    def _text(self, member: tarfile.TarInfo, limit: int) -> bytes:
        source = self._tar.extractfile(member)
        if source is None or member.size > limit:
            raise _damaged(self._path, f"its {member.name} has the wrong form")
        return source.read()

    def _decode(self, name: str, text: bytes, as_type: type[T]) -> T:
        try:
            return msgspec.json.decode(text, type=as_type)
        except msgspec.DecodeError as error:
            raise _damaged(self._path, f"its {name} cannot be read") from error

    def _extract(self, member: tarfile.TarInfo) -> None:
        parts = PurePosixPath(member.name).parts
        if not parts or member.name.startswith("/") or ".." in parts:
            raise _damaged(self._path, "a name in it leads out of it")
        place = self._folder.joinpath(*parts)
        self._check_place(member, parts)
        try:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if member.isdir():
                place.mkdir(mode=0o700, exist_ok=True)
            elif member.issym():
                self._links.append((place, member.linkname))
            elif member.isreg():
                self._write(member, place)
            else:
                raise _damaged(self._path, f"{member.name} is neither file, folder nor link")
        except (FileExistsError, NotADirectoryError) as error:
            raise _damaged(self._path, f"{member.name} is in it twice") from error

    def _check_place(self, member: tarfile.TarInfo, parts: tuple[str, ...]) -> None:
        """Refuse what no backup holds: whoever restores writes keys and stores in those places."""
        below = "/".join(parts[1:])
        if any(below == name or below.startswith(f"{name}/") for name in self._left_out):
            raise _damaged(self._path, f"{member.name[:80]} does not belong in a backup")
        self._total += member.size
        if self._total > self._room:
            raise _damaged(self._path, "it holds more than the disk has room for")

    def _write(self, member: tarfile.TarInfo, place: Path) -> None:
        source = self._tar.extractfile(member)
        digest, size = hashlib.sha256(), 0
        with place.open("xb") as file:
            os.fchmod(file.fileno(), member.mode & 0o700)
            while source is not None and (piece := source.read(_PIECE)):
                digest.update(piece)
                size += file.write(piece)
        os.utime(place, (member.mtime, member.mtime))
        key = os.fsencode(member.name).decode("latin-1")
        self._files.append(ArchivedFile(key, size, digest.hexdigest()))


def _check_formats(path: Path, header: ArchiveHeader, formats: tuple[int, int]) -> None:
    if (header.format, header.data_format) != formats:
        raise InvalidInput(
            f"{path} was made by AngelOS {header.version[:40]} (formats {header.format} and "
            f"{header.data_format}); this version reads formats {formats[0]} and {formats[1]}. "
            "Nothing was restored.",
            hint="Restore it with that version.",
        )


def _info(name: str, status: os.stat_result) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode, info.mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
    return info


def _name(file: ArchivedFile) -> str:
    return file.name


def _damaged(path: Path, reason: str) -> InvalidInput:
    return InvalidInput(f"{path} cannot be restored: {reason}. Nothing was restored.")
