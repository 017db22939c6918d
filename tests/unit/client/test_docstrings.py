"""What an IDE shows of the client: each parameter of each public method, and what it raises."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import pytest

from angelos.client.admin import AgentCollection, AuditLog, NodeCollection, PersonCollection
from angelos.client.angelos import Angelos
from angelos.client.models import ModelCollection
from angelos.client.proposals import Proposal, ProposalCollection
from angelos.client.repos import Repo, RepoCollection
from angelos.client.rooms import RoomClient
from angelos.client.tasks import Task, TaskCollection, TaskOptions
from angelos.core.api import SubmitTask

CLASSES = (
    Angelos,
    TaskCollection,
    Task,
    RepoCollection,
    Repo,
    ProposalCollection,
    Proposal,
    NodeCollection,
    AgentCollection,
    PersonCollection,
    AuditLog,
    RoomClient,
    ModelCollection,
)
SILENT = {"Angelos.open", "Angelos.close"}
"""They raise nothing of their own."""


def methods() -> dict[str, Callable[..., object]]:
    return {
        f"{cls.__name__}.{name}": getattr(cls, name)
        for cls in CLASSES
        for name, member in vars(cls).items()
        if (callable(member) or isinstance(member, classmethod))
        and (not name.startswith("_") or name == "__getitem__")
    }


@pytest.mark.parametrize("name", methods())
def test_a_method_says_what_it_takes_and_what_it_raises(name):
    method = methods()[name]
    text = inspect.getdoc(method) or ""
    taken = [str(p).partition(":")[0] for p in inspect.signature(method).parameters.values()]
    names = [p.partition("=")[0] for p in taken if p not in {"self", "cls"}]
    documented = text.partition("Args:\n")[2].partition("\n\n")[0]
    assert [p for p in names if f"    {p}: " not in documented] == []
    assert "Raises:" in text or name.endswith("__getitem__") or name in SILENT


@pytest.mark.parametrize("method", [TaskCollection.start, TaskCollection.run])
def test_the_options_of_a_task_are_named_where_it_is_started(method):
    text = inspect.getdoc(method) or ""
    options = text.partition("**options: ")[2].partition("; see")[0]
    assert set(re.findall(r"`(\w+)`", options)) == TaskOptions.__optional_keys__
    fields = set(SubmitTask.__struct_fields__) - {"code"}
    assert fields == TaskOptions.__optional_keys__
