"""Traces of both roads, from facts and from what nodes measure, for OpenTelemetry."""
