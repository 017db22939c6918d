r"""AngelGit (Leliel, the log; Irouel, the snapshots): version control of live documents.

Every file of a repository is a CRDT document. People type into the documents of `dev`; agents
propose edits against a revision, which become CRDT updates and merge beside those of others;
`main` moves only to a candidate that was tested. Commits are signed and content addressed.

    async with AngelGit(database, valkey, key, clock, journal, workspace) as repository:
        base = await repository.create("study", {"a.txt": b"one\\n"}, author, "import")
        await repository.propose(id, "study", base, [NewText(path="a.txt", text="two\\n")], ...)
        await repository.merge(id)
        candidate = await repository.candidate(id)
        await repository.advance("study", candidate.revision, expected=base)

Rooms, each of which imports only those above it:

- `documents`: what a document holds (CRDT states, notebooks, minimal edits, replicas in memory);
- `merge`: pure decisions on texts (three-way merge, conflicts, files);
- `storage`: PostgreSQL (commits, blobs, proposals) and Valkey (the log of updates);
- `worktree`: the working files, and what others write into them;
- `changes`: proposals, candidates, `main`, and the crash-safe transactions that write `dev`.

`service` puts them together behind the port `core.ports.Repository`.
"""
