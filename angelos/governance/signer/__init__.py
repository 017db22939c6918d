"""The signer: a process of its own that holds the log's keys, and signs only a tree that grows.

The server asks it for each checkpoint and cannot read its keys: as root it runs as a user of its
own, whose key file nobody else may open; as an ordinary user it keeps its keys in memory, where
not even the same user's processes may look (it is not dumpable), and has new ones in each life.
"""
