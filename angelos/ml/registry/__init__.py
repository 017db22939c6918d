"""The registry of role models: versions, aliases, promotions, and the runs that make them."""
