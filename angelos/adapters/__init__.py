"""The real ends of the ports: stores, sockets, certificates, and the fakes for tests.

An adapter knows one outside thing (PostgreSQL, Valkey, a WebSocket, X.509) and nothing of the
planes. Planes take ports (`angelos.core.ports`) and are given adapters by `angelos.wiring`.

    async with EmbeddedValkey(data, run) as server:
        journal = ValkeyJournal(connect(server.url))
        await journal.append([fact])
"""
