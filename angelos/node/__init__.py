"""The node plane: runs tasks in boxes and keeps checkouts, wherever there is Linux.

A node is a process of its own (`python -m angelos.wiring.node`). It takes signed commands from its
channel to the hub, verifies each grant itself, and tells facts. `sandbox.py` makes the boxes,
`state.py` decides the status word from the evidence, `checkout.py` keeps verified revisions.

    async with BubblewrapSandbox() as sandbox:
        async for event in sandbox.run(RunSpec(argv=("python", "-V"), limits=Limits())):
            ...
"""
