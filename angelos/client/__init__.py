"""One asynchronous client for notebooks, the CLI, the dashboard, agents and tests.

    async with Angelos.connect() as angelos:               # the system that runs here
        result = await angelos.tasks.run("print(6 * 7)")
        print(result.status, result.stdout)

    async with Angelos.with_certificate(folder) as angelos:  # an enrolled agent, by mutual TLS
        study = angelos.repos["study"]
        proposal = await study.propose([edit], base="main", message="Speed up the mean")
        view = await proposal.settled()

What the server refuses is raised as the same class of `angelos.core.errors`.
"""

from angelos.client.angelos import Angelos
from angelos.client.proposals import Proposal
from angelos.client.repos import Repo
from angelos.client.tasks import Restarted, Task, TaskOptions
from angelos.core.messages import Limits
from angelos.core.permissions import Role
from angelos.core.repository import DeleteFile, NewText, UnifiedDiff
from angelos.core.runs import Output

__all__ = [
    "Angelos",
    "DeleteFile",
    "Limits",
    "NewText",
    "Output",
    "Proposal",
    "Repo",
    "Restarted",
    "Role",
    "Task",
    "TaskOptions",
    "UnifiedDiff",
]
