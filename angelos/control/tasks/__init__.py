"""Tasks: from a request to a queue, and their ends."""
