"""Governance: what happened stays provable, and principals that misbehave are stopped.

The lasting facts of the journal become leaves of a Merkle tree (RFC 6962) in PostgreSQL, with
checkpoints signed by the log's own key; anybody can verify an export offline. Facts that prove
misbehaviour lead to quarantine, suspicious ones to a flag.

    async with SignerProcess(origin, keys) as signer, LogService(
        journal, database, signer, clock
    ) as audit, Governance(journal, clock, signals):
        proof = await audit.prove(17)
"""
