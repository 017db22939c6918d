"""Witnesses: others who cosign the log's checkpoints, so that it cannot show two people two pasts.

A witness runs on a host of somebody else. It remembers the last checkpoint of each log that it
knows, cosigns one only if it continues that, and so makes every rewriting of the log, and every
second version of it, visible to whoever asks for its cosignature.
"""
