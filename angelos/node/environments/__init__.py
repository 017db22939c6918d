"""Environments: packages that tasks name, installed once in a box and read-only afterwards."""
