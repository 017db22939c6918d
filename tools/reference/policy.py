"""policy.md: the Cedar rules by their `@id`, and the schema that they are checked against."""

from __future__ import annotations

import re
from collections.abc import Iterator

from angelos.control.gate import judges
from angelos.control.proposals import risk
from angelos.core.policy import engine
from angelos.core.policy.engine import POLICY_DIR
from tools.reference.source import doc, first, head, table

_RULE = re.compile(r'((?://[^\n]*\n)*)@id\("([^"]+)"\)\n(.*?;)\n', re.DOTALL)
_EFFECT = re.compile(r"^(permit|forbid)\b", re.MULTILINE)


def page() -> str:
    """Return the page."""
    files = sorted(POLICY_DIR.glob("*.cedar"))
    rows: list[tuple[str, str, str]] = []
    sections: list[str] = []
    for path in files:
        text = path.read_text(encoding="utf-8")
        rules = list(_rules(text))
        if len(rules) != text.count("@id("):
            raise ValueError(f"{path.name} holds rules that this does not read")
        sections += [f"## {path.name}", _comment(text.split("\n\n")[0])]
        for name, effect, why, body in rules:
            rows.append((f"[`{name}`](#{name.replace('.', '')})", effect, why))
            sections += [f"### {name}", why, f"```cedar\n{body}\n```"]
    schema = (POLICY_DIR / "schema.cedarschema").read_text(encoding="utf-8")
    parts = [
        head("Policy", f"{first(engine)}\n\nNothing is allowed that no rule permits, and a rule "
             "that forbids goes before all that permit. A decision names the rule it rests on; the "
             "hash of the files in force stands in `angelos status`."),
        table(("rule", "effect", ""), rows),
        *sections,
        "## Risk", first(risk), doc(risk.change_factors),
        "Paths that are policy in every repository: "
        + ", ".join(f"`{path}`" for path in risk.POLICY_PATHS) + ".",
        "Protected beside what `angelos.toml` names: the programs that its steps and its health "
        "command run, as far as they lie in the repository, and "
        + ", ".join(f"`**/{name}`" for name in sorted(judges.SETTINGS)) + ".",
        "## Schema", f"```cedarschema\n{schema.strip()}\n```",
    ]  # fmt: skip
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def _rules(text: str) -> Iterator[tuple[str, str, str, str]]:
    for comment, name, body in _RULE.findall(text):
        effect = _EFFECT.search(body)
        yield name, effect[1] if effect else "", _comment(comment), body


def _comment(text: str) -> str:
    return " ".join(line.lstrip("/ ") for line in text.splitlines() if line.startswith("//"))
