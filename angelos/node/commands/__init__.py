"""Commands from the hub: received once, carried out by one handler each, reported as facts."""
