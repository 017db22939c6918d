"""The composition root: reads the environment and builds the planes.

`build` makes the server's side, `node` an execution node. A node's process imports nothing of
the server, so this module imports nothing.
"""
