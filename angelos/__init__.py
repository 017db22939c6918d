"""AngelOS: several agents and people in the same live notebooks and files, safely.

Everything is a step on one of two roads (docs/explanation/roads.md): *a task* runs code in a
sandbox on an execution node; *a patch* travels from a proposal through tests and review to
`main` and can be taken back.

    from angelos.client import Angelos

    async with Angelos.connect() as angelos:
        result = await angelos.tasks.run("print(6 * 7)")
"""

__version__ = "0.1.0"
