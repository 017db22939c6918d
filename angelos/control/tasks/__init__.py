"""Tasks: from a request to the queue of a node, and how they end."""
