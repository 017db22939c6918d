r"""AngelGit (Leliel, the log; Irouel, the snapshots): version control of live documents.

Every file of a repository is a CRDT document. People type into the documents of `dev`; agents
propose edits against a revision, which become CRDT updates and merge around everybody else's;
`main` moves only to a candidate that was tested. Commits are signed and content addressed.

    async with AngelGit(database, valkey, key, clock, journal, workspace) as repository:
        base = await repository.create("study", {"a.txt": b"one\\n"}, author, "import")
        await repository.propose(id, "study", base, [NewText(path="a.txt", text="two\\n")], ...)
        await repository.merge(id)
        candidate = await repository.candidate(id)
        await repository.advance("study", candidate.revision, expected=base)

Rooms: `edits` (text to minimal edits, diffs), `stale` (do two changes touch the same lines),
`documents` and `notebook` (CRDT layout), `replica` (a live document in memory), `log` (Valkey),
`store` (Postgres), `moves` and `recovery` (changes of `dev`, crash-safe), `files`, `outside` and
`printer` (working files, and what others write into them), `service`.
"""
