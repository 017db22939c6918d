"""Programs that control sends to a sandbox as the code of a task; their output is for people."""
