"""The network: routes over HTTP, WebSockets, the link of a channel, outgoing connections."""
