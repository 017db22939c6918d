"""The jobs that tiny models do: `sentinel`, `completer`, `router`, `titler`."""
