"""Governance: what happened stays provable, and principals that misbehave are stopped.

The lasting facts of the journal become leaves of a Merkle tree (RFC 6962) in PostgreSQL, with
checkpoints signed by the log's own key; anybody can verify an export offline. Facts that prove
misbehaviour lead to quarantine, suspicious ones to a flag.

    async with Governance(journal, database, log_key, clock, signals) as governance:
        lines = [line async for line in governance.export()]
    report = verify(lines)
"""
