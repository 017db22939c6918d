"""The system of `angelos up`: stores, server and nodes, each a watched child process."""
