"""The network: HTTP, WebSockets, the link of a channel, dialling."""
