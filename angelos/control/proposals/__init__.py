"""Proposals: from their edits to main, their tests, and who decides."""
