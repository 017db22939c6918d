"""The git protocol (version 0, over HTTP): what is advertised, and packs for a clone or fetch.

    body = advertisement(view, "git-upload-pack")
    upload_pack(view, request, answer)

Everything here blocks; callers use threads. A repository is served as it was when its `GitView` was
taken, so references and objects agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from typing import IO, Literal

from dulwich.errors import GitProtocolError, HangupException
from dulwich.protocol import Protocol
from dulwich.refs import DictRefsContainer, Ref
from dulwich.repo import BaseRepo
from dulwich.server import Backend, BackendRepo, UploadPackHandler

from angelos.angelgit.git.service import GitView
from angelos.core.errors import InvalidInput

ServiceName = Literal["git-upload-pack", "git-receive-pack"]
_RECEIVE = b"report-status side-band-64k delete-refs ofs-delta object-format=sha1 agent=angelos"
_ZERO = b"0" * 40
SIDE_BAND = 1000
"""Bytes of one packet, small enough for clients without `side-band-64k`."""


class ServedRepository(BaseRepo):
    """A view as dulwich serves it."""

    def __init__(self, view: GitView) -> None:
        refs = {Ref(name): identifier.encode() for name, identifier in view.refs.items()}
        container = DictRefsContainer(dict(refs))
        super().__init__(view.cache.repo.object_store, container)
        container.set_symbolic_ref(Ref(b"HEAD"), Ref(b"refs/heads/main"))


class _OneRepository(Backend):
    def __init__(self, repo: BaseRepo) -> None:
        self._repo = repo

    def open_repository(self, path: str) -> BackendRepo:
        """Return the only one there is."""
        del path
        return self._repo  # pyright: ignore[reportReturnType] - it has what the protocol names


def advertisement(view: GitView, service: ServiceName) -> bytes:
    """Return the references, with what the server can do."""
    head = pkt_line(b"# service=%s\n" % service.encode()) + b"0000"
    if service == "git-upload-pack":
        answer = BytesIO()
        _serve(view, BytesIO(), answer, advertise=True)
        return head + answer.getvalue()
    rows = sorted(view.refs.items()) or [(b"capabilities^{}", _ZERO.decode())]
    lines = [
        b"%s %s%s\n" % (identifier.encode(), name, b"" if index else b"\0" + _RECEIVE)
        for index, (name, identifier) in enumerate(rows)
    ]
    return head + b"".join(map(pkt_line, lines)) + b"0000"


def upload_pack(view: GitView, request: IO[bytes], answer: IO[bytes]) -> None:
    """Answer what a client wants and has with a pack.

    Raises:
        InvalidInput: the request is not in the protocol, or wants what is not advertised.
    """
    _serve(view, request, answer, advertise=False)


def pkt_line(line: bytes) -> bytes:
    """Return a line in git's packet form."""
    return b"%04x%s" % (len(line) + 4, line)


def report(statuses: Iterable[tuple[bytes, str]], words: str, *, unpacked: str = "ok") -> bytes:
    """Return the answer to a push: for each reference how it went, and words for its author."""
    lines = pkt_line(b"unpack %s\n" % unpacked.encode())
    for name, problem in statuses:
        row = b"ng %s %s\n" % (name, problem.encode()) if problem else b"ok %s\n" % name
        lines += pkt_line(row)
    lines += b"0000"
    return _banded(2, words.encode()) + _banded(1, lines) + b"0000"


def _banded(band: int, data: bytes) -> bytes:
    pieces = (data[i : i + SIDE_BAND - 5] for i in range(0, len(data), SIDE_BAND - 5))
    return b"".join(pkt_line(bytes([band]) + piece) for piece in pieces)


def _serve(view: GitView, request: IO[bytes], answer: IO[bytes], *, advertise: bool) -> None:
    protocol = Protocol(request.read, answer.write)
    backend = _OneRepository(ServedRepository(view))
    try:
        handler = UploadPackHandler(
            backend, ["/"], protocol, stateless_rpc=True, advertise_refs=advertise
        )
        handler.handle()
    except (GitProtocolError, HangupException, KeyError, ValueError, AssertionError) as error:
        raise InvalidInput(f"The git client's request is wrong: {error!r:.200}") from error
