"""What `angelos up` runs: the stores, the server, nodes, each a child that is watched."""
