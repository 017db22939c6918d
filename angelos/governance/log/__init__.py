"""The immutable log: leaves, tree, signed checkpoints, proofs, exports and their verifier."""
