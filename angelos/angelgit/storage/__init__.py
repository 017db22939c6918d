"""What is kept: the mutation log, live documents, trees, snapshots, and the rows in PostgreSQL."""
