"""Which documents `dev` has: their rows, their paths, and which were edited since the last commit.

For example:

    await index.load("study")
    document = index.document("study", "study/difflib.py")
    index.rows[document].mode
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from msgspec import structs

from angelos.angelgit.storage.models import DocumentRow
from angelos.angelgit.storage.store import Stores
from angelos.core.errors import NotFound, Unavailable
from angelos.core.ids import START, Offset, PrincipalId, offset_key


class DocumentIndex:
    """The documents of all repositories, in memory; those that were deleted have a row too."""

    def __init__(self, stores: Stores) -> None:
        self.rows: dict[str, DocumentRow] = {}
        """Document -> its committed row."""
        self._stores = stores
        self._paths: dict[str, dict[str, str]] = {}
        self._dirty: dict[str, dict[str, set[PrincipalId]]] = {}
        self.elsewhere: dict[str, str] = {}
        """Repository -> the other server that has its documents."""

    async def load(self, repo: str) -> None:
        """Read the documents of a repository from the store."""
        async with self._stores.begin() as store:
            rows = await store.documents(repo)
        # A snapshot may have been taken since these rows were read, and the log trimmed up to it:
        # an older row would start a replay in the gap.
        in_memory = (self.rows.get(row.id) for row in rows)
        pairs = zip(rows, in_memory, strict=True)
        self.update(repo, [row for row, own in pairs if not (own and is_after(own.upto, row.upto))])

    def hand_over(self, repo: str, owner: str) -> set[str]:
        """Forget a repository's documents, which another server has; return which they were."""
        self.elsewhere[repo] = owner
        self._dirty.pop(repo, None)
        # The other one may set a snapshot's position back, so that ours would seem to be newer.
        for row in [row for row in self.rows.values() if row.repo == repo]:
            self.rows[row.id] = structs.replace(row, upto=START)
        return set(self._paths.pop(repo, {}).values())

    def check(self, repo: str) -> None:
        """Raise `Unavailable` if another server has a repository's documents."""
        if (owner := self.elsewhere.get(repo)) is not None:
            raise Unavailable(
                f"The live documents of {repo} are at another server ({owner}).",
                hint="Ask that one, or wait until it gives them up.",
            )

    def update(self, repo: str, rows: Iterable[DocumentRow]) -> None:
        """Replace rows by committed ones."""
        paths = self._paths.setdefault(repo, {})
        rows = list(rows)
        for row in rows:
            previous = self.rows.get(row.id)
            self.rows[row.id] = row
            for path in {row.path, previous.path if previous else row.path}:
                if paths.get(path) == row.id and not (row.alive and path == row.path):
                    del paths[path]
        paths.update((row.path, row.id) for row in rows if row.alive)

    def exists(self, repo: str, path: str) -> bool:
        """Return whether `dev` has a file, and this server its document."""
        return path in self._paths.get(repo, {})

    def paths(self, repo: str) -> dict[str, str]:
        """Return path -> document of the files in `dev`."""
        self.check(repo)
        return dict(self._paths.get(repo, {}))

    def document(self, repo: str, path: str) -> str:
        """Return the id of the document at a path of `dev`; raise `NotFound`."""
        self.check(repo)
        try:
            return self._paths[repo][path]
        except KeyError:
            raise NotFound(f"There is no file {path!r} in dev of repository {repo!r}.") from None

    def row(self, document: str) -> DocumentRow:
        """Return the row of a document of `dev`; raise `NotFound` if it was deleted."""
        row = self.rows.get(document)
        for repo in [row.repo] if row else self.elsewhere:  # one that is not known may be there
            self.check(repo)
        if row is None or self._paths.get(row.repo, {}).get(row.path) != document:
            raise NotFound(
                f"{row.path if row else 'The document'} was deleted.",
                hint="Reload the page; what it shows can be copied first.",
            )
        return row

    def dirty(self, repo: str) -> set[str]:
        """Return the documents that were edited since the last commit of `dev`."""
        return set(self._dirty.get(repo, ()))

    def writers(self, repo: str, document: str) -> set[PrincipalId]:
        """Return who edited a document since the last commit of `dev`, as far as it is known."""
        return set(self._dirty.get(repo, {}).get(document, ()))

    def mark_dirty(self, repo: str, document: str, writer: PrincipalId | None = None) -> None:
        """Record that a document was edited, and by whom."""
        writers = self._dirty.setdefault(repo, {}).setdefault(document, set())
        writers |= {writer} if writer else set()

    def mark_clean(self, repo: str, documents: Collection[str]) -> None:
        """Record that a commit of `dev` contains all edits of documents."""
        for document in documents:
            self._dirty.get(repo, {}).pop(document, None)


def is_after(offset: Offset, reference: Offset) -> bool:
    """Return whether `offset` is behind `reference` in the log."""
    return offset_key(offset) > offset_key(reference)
