"""Commands of the hub: the inbox, the runner, output and the facts that are told."""
