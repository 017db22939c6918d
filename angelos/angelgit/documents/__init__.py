"""One document: its CRDT, its text, its cells, and the edits that are applied to it."""
