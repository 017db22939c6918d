"""The pure fold of the journal: models, events in, effects out."""
