"""PostgreSQL and Valkey behind the ports."""
