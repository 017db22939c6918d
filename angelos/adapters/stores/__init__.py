"""PostgreSQL and Valkey behind the ports: the journal, the queues, transactions, migrations."""
