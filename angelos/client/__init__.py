"""One asynchronous client for notebooks, the CLI, the dashboard, agents and tests.

    async with Angelos.connect() as angelos:               # the system that runs here
        result = await angelos.run("print(6 * 7)")
        print(result.status, result.stdout)

    async with Angelos.with_certificate(folder) as angelos:  # an enrolled agent, by mutual TLS
        await angelos.propose("study", "main", [edit], "Speed up the mean")

What the server refuses is raised as the same class of `angelos.core.errors`.
"""

from angelos.client.angelos import Angelos
from angelos.client.tasks import Restarted

__all__ = ["Angelos", "Restarted"]
