"""ARMISAEL: what agents and people remember, by meaning and by word."""
