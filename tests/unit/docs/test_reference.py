"""docs/reference says what the code says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from angelos.cli import cli
from angelos.core.facts import PAYLOADS, Fact, Kind, TaskOutput, to_json
from angelos.core.ids import PrincipalId
from angelos.core.messages import COMMANDS as COMMANDS_BY_KIND
from angelos.core.messages import Limits
from tools import reference
from tools.reference import policy, settings, source
from tools.reference.api import doors

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "docs" / "reference"


def test_no_page_is_out_of_date():
    assert reference.outdated(FOLDER) == [], "run `make docs`"


def test_the_check_names_pages_that_are_out_of_date(tmp_path, capsys):
    assert reference.main([str(tmp_path)]) == 0
    assert reference.main([str(tmp_path), "--check"]) == 0
    (tmp_path / "roles.md").write_text("changed\n")
    (tmp_path / "cli.md").unlink()
    assert reference.main([str(tmp_path), "--check"]) == 1
    told = capsys.readouterr().err
    assert "roles.md is out of date" in told
    assert "cli.md is out of date" in told
    assert "errors.md" not in told
    assert not (tmp_path / "cli.md").exists()  # a check writes nothing


def test_every_command_has_its_section():
    page = reference.PAGES["cli.md"]()
    for name in cli.entries:
        assert f"\n## angelos {name}\n" in page


def test_every_route_has_its_section():
    page = reference.PAGES["api.md"]()
    routes = [route for routes in doors().values() for route in routes]
    assert len(routes) > 25
    for route in routes:
        assert f"\n### {route.method} {route.path}\n" in page


def test_every_kind_of_fact_and_every_limit_is_there():
    page = reference.PAGES["messages.md"]()
    for kind in Kind:
        assert f"\n| `{kind}` |" in page
    for limit in Limits.__struct_fields__:
        assert f"\n| `{limit}` |" in page


def test_the_schema_knows_every_message_and_holds_together():
    schema = json.loads(reference.PAGES["messages.schema.json"]())
    definitions = schema["$defs"]
    assert [fact["title"] for fact in definitions["Fact"]["oneOf"]] == list(PAYLOADS)
    assert {c.__name__ for c in COMMANDS_BY_KIND.values()} <= definitions.keys()
    assert {"SubmitTask", "TaskView", "Problem", "SubmitProposal"} <= definitions.keys()
    named = re.findall(r'"#/\$defs/([^"]+)"', json.dumps(schema))
    assert set(named) <= definitions.keys()


def test_a_fact_as_readers_get_it_is_valid_by_the_schema():
    validator = Draft202012Validator(json.loads(reference.PAGES["messages.schema.json"]()))
    output = TaskOutput(stream="stdout", text="hi")
    fact = Fact.of(output, at=1.0, actor=PrincipalId("node/exec1"), subject="task-1")
    shown = json.loads(to_json(fact))
    assert validator.is_valid(shown)
    assert not validator.is_valid(shown | {"data": {"stream": "both", "text": "hi"}})
    assert not validator.is_valid(shown | {"kind": "of.another.kind"})


def test_a_rule_that_cannot_be_read_is_not_left_out(tmp_path, monkeypatch):
    (tmp_path / "odd.cedar").write_text('@id("odd") permit (principal, action, resource);\n')
    monkeypatch.setattr(policy, "POLICY_DIR", tmp_path)
    with pytest.raises(ValueError, match=r"odd\.cedar"):
        policy.page()


def test_variables_are_found_where_they_are_read():
    page = settings.page()
    for name in ("ANGELOS_DATA_DIR", "ANGELOS_POSTGRES_DSN", "ANGELOS_ALLOW_UNSANDBOXED"):
        assert f"\n| `{name}` |" in page


class Sample:
    """A class whose fields are described in every way there is."""

    beside: int = 1  # text beside
    below: str = "a|b"
    """Text
    below."""
    bare: float
    tools: int = 2  # noqa: RUF100 - for tools only


def test_what_stands_beside_and_below_a_field_is_read():
    assert source.fields(Sample) == [
        source.Field("beside", "int", "1", "text beside"),
        source.Field("below", "str", '"a|b"', "Text below."),
        source.Field("bare", "float", "", ""),
        source.Field("tools", "int", "2", ""),
    ]
