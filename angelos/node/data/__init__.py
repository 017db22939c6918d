"""Data of the node: the system call table and the files that stand for `/etc` in a box."""
