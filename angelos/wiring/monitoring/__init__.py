"""How the system says how it is: `/metrics`, `/healthz`, `/readyz`, `/load`."""
