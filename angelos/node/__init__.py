"""The node plane: runs tasks in boxes and keeps checkouts, on any Linux machine.

A node is a process of its own (`python -m angelos.wiring.node`). `service` receives signed
commands from the hub and verifies each grant itself; `commands` carries them out and reports
facts; `sandbox` makes the boxes and judges how a run ended; `checkouts` keeps verified revisions;
`runtimes` knows the languages.

    async with BubblewrapSandbox() as sandbox:
        run = RunSpec(argv=("python", "-V"), limits=Limits())
        async with await sandbox.start(SessionSpec(run=run)) as session:
            end = await session.wait()
"""
