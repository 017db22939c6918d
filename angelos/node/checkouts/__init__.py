"""Revisions on the disk of a node: pulled, verified, switched to."""
