"""LILITH: tiny models, each for one honest job, measured beside the simple thing it replaces."""
