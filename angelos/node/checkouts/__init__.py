"""Revisions on the disk of a node: pulled, verified, tried, and then put in force."""
