"""Changes of a repository: proposals, candidates, main, and the transactions that write them."""
