"""The sentinel at work: scores of patches, in a process of its own.

    async with SentinelProcess(source) as scorer:
        score = await scorer.score(["import os"])     # None while no version is in use

The model is loaded at the first patch, and again when another version is in use. Nobody waits long
for it: a patch that comes meanwhile has no score, which says why.

A loss means something beside losses of the same model only, and the worst of many lines is worse
than the worst of few; a beginning surprises more than what goes on. So a patch is compared with
pieces of approved text that the model never saw, as long as it is, that begin with a line like it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import os
import resource
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from angelos.adapters.host.worker import WorkerProcess
from angelos.core.errors import AngelError, InvalidInput, Unavailable
from angelos.core.findings import PatchScore
from angelos.ml.language import character_losses
from angelos.ml.roles.sentinel import MAX_CHARACTERS, MEASURES, worst_window

if TYPE_CHECKING:
    from llm.model import GPTDecoder

MAX_APPROVED = 1_000_000
"""Characters of approved text from which pieces are taken."""
MAX_COMPARED = 40_000
"""Characters of pieces of one length: some 4 s of a busy core, once."""
MAX_PIECES = 64
_REMEMBERED = 256
_MEMORY = 3 << 30
_ADAPTER = "sentinel"


class SentinelVersion(NamedTuple):
    """A version as artefacts."""

    name: str
    """As `sentinel:3`."""
    base: bytes
    adapter: bytes | None
    """LoRA, on the base."""
    approved: tuple[str, ...]
    """Approved texts that it never saw."""


class SentinelSource(Protocol):
    """Where the version comes from that is in use."""

    async def current(self) -> str:
        """Return the name of the version in use, empty if there is none."""
        ...

    async def read(self, name: str) -> SentinelVersion:
        """Return a version.

        Raises:
            AngelError: It is not there, or damaged.
        """
        ...


class SentinelProcess:
    """A `PatchScorer` by the version that a source names.

    Args:
        source: Names the version.
        timeout_s: How long a patch waits.
        loading_s: How long loading may take.
    """

    def __init__(
        self, source: SentinelSource, timeout_s: float = 20.0, loading_s: float = 120.0
    ) -> None:
        self._source = source
        self._timeout_s = timeout_s
        self._loading_s = loading_s
        self.worker = WorkerProcess("the sentinel")
        self._scores: OrderedDict[str, PatchScore] = OrderedDict()
        self._loading: asyncio.Task[None] | None = None
        self._loaded: tuple[str, int | None] = ("", None)
        self._unreadable: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.worker.close()
        if self._loading is not None:
            self._loading.cancel()
            with contextlib.suppress(asyncio.CancelledError, AngelError):
                await self._loading

    async def score(self, texts: Sequence[str]) -> PatchScore | None:
        """Return the score of texts, those of a patch; None while no version is in use.

        Raises:
            Unavailable: There is no score within the time, or the version cannot be loaded.
        """
        name = await self._source.current()
        if not name:
            return None
        cut, skipped = shorten(texts)
        key = hashlib.sha256(repr((name, cut, skipped)).encode(errors="replace")).hexdigest()
        if (score := self._scores.get(key)) is None:
            await self._ready(name)
            score = await self._called(name, cut, skipped)
            self._scores[key] = score
            if len(self._scores) > _REMEMBERED:
                self._scores.popitem(last=False)
        return score

    async def _called(self, name: str, texts: tuple[str, ...], skipped: int) -> PatchScore:
        try:
            return await self.worker.call(
                score_in_process, name, texts, skipped, timeout_s=self._timeout_s
            )
        except AngelError:
            raise
        except Exception as error:
            raise Unavailable(f"{name} gave none ({type(error).__name__})") from error

    async def _ready(self, name: str) -> None:
        """Return when a version is loaded; loading goes on when nobody waits any more."""
        if cause := self._unreadable.get(name):
            raise Unavailable(cause)
        if self._loaded == (name, self.worker.pid) and self.worker.pid is not None:
            return
        if self._loading is None or self._loading.done():
            self._loading = asyncio.create_task(self._load(name), name="load the sentinel")
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.shield(self._loading)
        except TimeoutError as error:
            raise Unavailable(f"{name} is being loaded") from error
        if self._loaded[0] != name:  # another version, for somebody else
            raise Unavailable(f"{name} is being loaded")

    async def _load(self, name: str) -> None:
        try:
            version = await self._source.read(name)
            await self.worker.call(load_in_process, version, timeout_s=self._loading_s)
        except InvalidInput as error:
            self._unreadable[name] = f"{name} cannot be read: {error.detail}"
            raise Unavailable(self._unreadable[name]) from error
        except AngelError:
            raise
        except ModuleNotFoundError as error:
            raise Unavailable(f"{name} cannot be loaded: {error.name} is not installed") from error
        except Exception as error:
            raise Unavailable(f"{name} cannot be loaded ({type(error).__name__})") from error
        self._loaded = (name, self.worker.pid)


def shorten(texts: Sequence[str], limit: int = MAX_CHARACTERS) -> tuple[tuple[str, ...], int]:
    """Return texts cut to a limit in all, and how many characters that leaves out.

    Short ones stay whole, so that nothing hides behind one that is long.

    >>> shorten(["a" * 9, "bb", "c" * 9], 12)
    (('aaaaa', 'bb', 'ccccc'), 8)
    """
    kept, left = list(texts), limit
    for turn, number in enumerate(sorted(range(len(texts)), key=lambda i: len(texts[i]))):
        kept[number] = texts[number][: left // (len(texts) - turn)]
        left -= len(kept[number])
    return tuple(kept), sum(map(len, texts)) - sum(map(len, kept))


class _Loaded(NamedTuple):
    name: str
    decoder: GPTDecoder
    approved: str
    losses: dict[int, list[float]]
    """Of approved pieces, by their length."""


_loaded: _Loaded | None = None


def load_in_process(version: SentinelVersion) -> None:
    """Load a version; runs in the sentinel's process.

    Raises:
        InvalidInput: It is no model, or no adapter of it.
    """
    global _loaded  # noqa: PLW0603 - one for each process
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    if not _loaded:
        os.nice(10)
    import torch

    torch.set_num_threads(1)  # the machine has other work
    from angelos.ml.training import model_of

    decoder = model_of(version.base)
    if version.adapter is not None:
        from angelos.ml.lora import AdapterHost

        host = AdapterHost(decoder)
        host.load(_ADAPTER, version.adapter)
        decoder = host.merged(_ADAPTER)
    approved = "\n".join(version.approved)[:MAX_APPROVED]
    _loaded = _Loaded(version.name, decoder, approved, {})


def score_in_process(name: str, texts: tuple[str, ...], skipped: int) -> PatchScore:
    """Return the score of texts by the loaded version; runs in the sentinel's process."""
    if _loaded is None or _loaded.name != name:
        raise Unavailable(f"{name} is not loaded.")
    losses = character_losses(_loaded.decoder, ["\n".join(texts)])[0]
    loss, place = worst_window(losses)
    ends = accumulate(len(text) + 1 for text in texts)
    number = next((i for i, end in enumerate(ends) if place < end), len(texts) - 1)
    approved = _approved_losses(_loaded, len(losses))
    if not all(map(math.isfinite, (loss, *approved))):
        raise Unavailable(f"{name} gave a loss that is not finite.")
    measures = {peer: measure(texts[number]) for peer, measure in MEASURES.items()}
    return PatchScore(
        model=name,
        text=number,
        loss=loss,
        unlike=sum(piece < loss for piece in approved) / max(1, len(approved)),
        pieces=len(approved),
        entropy=measures["entropy"],
        zlib_ratio=measures["zlib ratio"],
        longest_line=int(measures["longest line"]),
        read=sum(map(len, texts)),
        skipped=skipped,
    )


def _approved_losses(loaded: _Loaded, length: int) -> list[float]:
    """Return the worst window of each approved piece of about this length."""
    about = round(2 ** (round(4 * math.log2(max(1, length))) / 4))
    if about not in loaded.losses:
        pieces = approved_pieces(loaded.approved, about)
        rows = character_losses(loaded.decoder, pieces)
        loaded.losses[about] = [worst_window(row)[0] for row in rows]
    return loaded.losses[about]


def approved_pieces(text: str, length: int) -> list[str]:
    r"""Return pieces of a text, from its beginning to its end, that begin with a line.

    >>> approved_pieces("ab\ncd\nef\n", 4)
    ['ab\nc', 'cd\ne']
    """
    count = min(MAX_PIECES, MAX_COMPARED // length, len(text) // length)
    step = len(text) / max(1, count)
    starts = [text.rfind("\n", 0, round(i * step) + 1) + 1 for i in range(count)]
    return [text[start : start + length] for start in dict.fromkeys(starts)]
