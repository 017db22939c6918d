"""Fixtures for all tests: real stores once a session, fresh databases for each test."""

from __future__ import annotations

from angelos.testing import clock, database, journal, queue, stores, valkey

__all__ = ["clock", "database", "journal", "queue", "stores", "valkey"]
