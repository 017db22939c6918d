"""The notes of a repository's commits, made for an export.

objects, head = await notes(store, "study", {revision: git_commit})
"""

from __future__ import annotations

from collections.abc import Mapping

from angelos.angelgit.changes import sides
from angelos.angelgit.changes.mainline import with_moves
from angelos.angelgit.documents.edits import lines
from angelos.angelgit.git.notes import LineAuthor, added_ranges, note
from angelos.angelgit.git.objects import COMMITTER, GitEntry, GitObject, git_object, tree_body
from angelos.angelgit.merge.changes import ChangedFile
from angelos.angelgit.storage.store import Store
from angelos.angelgit.storage.trees import EMPTY_ROOT
from angelos.angelgit.threads import in_thread
from angelos.core.ids import Revision
from angelos.core.revision_v2 import CommitObject, TrailerKey

MAX_COMMITS = 5_000
"""The newest; older ones get no note."""
_FILE = 0o100644


async def notes(
    store: Store, repo: str, commits: Mapping[Revision, str]
) -> tuple[list[GitObject], str]:
    """Return the git objects of all notes and the commit that holds them.

    Args:
        store: where revisions are.
        repo: the repository's name.
        commits: revision -> git commit of those to be annotated.
    """
    objects: list[GitObject] = []
    entries: list[GitEntry] = []
    latest = 0
    for revision, identifier in list(commits.items())[:MAX_COMMITS]:
        commit = await store.commit(repo, revision)
        if commit.git or len(commit.parents) > 1:
            continue  # git's own, or a merge, which wrote nothing itself
        text = await _note(store, repo, commit, identifier)
        if text:
            blob = git_object("blob", text.encode())
            objects.append(blob)
            entries.append(GitEntry(_FILE, identifier.encode(), blob.id))
            latest = max(latest, commit.at // 1000)
    tree = git_object("tree", tree_body(entries))
    who = f"AngelOS <{COMMITTER}> {latest} +0000"
    body = f"tree {tree.id}\nauthor {who}\ncommitter {who}\n\nNotes by AngelOS\n"
    head = git_object("commit", body.encode())
    return [*objects, tree, head], head.id


async def _note(store: Store, repo: str, commit: CommitObject, identifier: str) -> str:
    """Return the note of a commit, empty if it added no line."""
    before = EMPTY_ROOT
    if commit.parents:
        before = (await store.commit(repo, commit.parents[0])).tree
    changes = with_moves(await store.differences(before, commit.tree))
    changed = await sides.changed_files(store, changes)
    size = sum(len(side.body) for c in changed for side in (c.before, c.after) if side)
    author = LineAuthor(
        commit.authors[0],
        commit.trailer(TrailerKey.proposal),
        commit.trailer(TrailerKey.on_behalf_of),
    )
    return await in_thread(size, _text, identifier, changed, author)


def _text(identifier: str, changed: list[ChangedFile], author: LineAuthor) -> str:
    files: dict[str, list[tuple[int, int]]] = {}
    deleted = 0
    for change in changed:
        if change.after is None or not change.after.live:
            continue
        before = change.before.text if change.before and change.before.live else ""
        after = change.after.text
        ranges = added_ranges(before, after)
        if ranges:
            files[change.to or change.path] = ranges
        added = sum(end - start + 1 for start, end in ranges)
        deleted += len(lines(before)) - (len(lines(after)) - added)
    return note(identifier, files, author, deleted=deleted) if files else ""
