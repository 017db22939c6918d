"""The vocabulary gate finds what it is there to find, and nothing else."""

from __future__ import annotations

import json

import pytest

from tools import vocabulary
from tools.vocabulary import Module, measure


def report(*sources: tuple[str, str], complex_=None, prose=None):
    modules = [Module.of(path, source) for path, source in sources]
    return measure(modules, complex_=complex_ or {}, prose=prose or {})


def findings(rule: str, *sources: tuple[str, str], **tables) -> list[str]:
    return [
        f"{finding.path}:{finding.line}"
        for finding in report(*sources, **tables).findings
        if finding.rule == rule
    ]


def figure(rule: str, *sources: tuple[str, str]):
    return next(figure for figure in report(*sources).figures if figure.rule == rule)


def test_a_class_in_two_packages_is_named_at_both_places():
    sources = [
        ("angelos/node/a.py", "class Ledger: ..."),
        ("angelos/control/b.py", "\nclass Ledger: ..."),
        ("jupyter_ext/c.py", "class People: ..."),
        ("angelos/control/d.py", "def f():\n    class People: ..."),
    ]
    assert findings("class", *sources) == [
        "angelos/node/a.py:1",
        "angelos/control/b.py:2",
        "jupyter_ext/c.py:1",
        "angelos/control/d.py:2",
    ]
    assert figure("class", *sources).count == 2


@pytest.mark.parametrize(
    "sources",
    [
        [("angelos/node/a.py", "class Ledger: ..."), ("angelos/node/x/b.py", "class Ledger: ...")],
        [("angelos/node/a.py", "class _Own: ..."), ("angelos/hub/b.py", "class _Own: ...")],
        [("angelos/node/a.py", "class Config: ..."), ("llm/b.py", "class Config: ...")],
    ],
)
def test_a_class_may_stand_twice_in_its_package_privately_or_in_llm(sources):
    assert findings("class", *sources) == []


def test_every_way_to_give_a_name_is_counted():
    source = """
def f(known, *told, kept=1, **gone):
    said: int = 0
    self.left = 1
    for mine in []: ...
    with x as theirs: ...
    [who for who in x]
    (whom := 1)
    try: ...
    except E as stood: ...
    match x:
        case [made, *seen]: ...
        case {**wanted}: ...
        case 1 as asked: ...
    _then = lambda thing: thing
"""
    assert figure("word", ("llm/a.py", source)).count == 17


def test_the_use_of_a_name_and_longer_names_are_no_findings():
    source = "known_ids = 1\nprint(known, a.left, f(other=1))\nclass Known: ...\ndef found(): ..."
    assert findings("word", ("llm/a.py", source)) == []


def test_empty_names_have_a_rate_that_may_be_used_up():
    plain = "\n".join(f"a{i} = 1" for i in range(199))
    at = figure("word", ("llm/a.py", f"{plain}\nfound = 1"))
    over = figure("word", ("llm/a.py", f"{plain}\nfound = 1\nknown = 1"))
    assert (at.per_1000, at.holds) == (5.0, True)
    assert (over.of, over.holds) == (201, False)


def test_only_comments_switch_the_formatter_off():
    source = 'a = "# fmt: skip"\nb = 1  # fmt: skip\n# fmt: off\n'
    assert findings("skip", ("llm/a.py", source)) == ["llm/a.py:2", "llm/a.py:3"]


def test_fifty_lines_are_allowed_and_not_one_more():
    source = "def f():\n" + "    x = 1\n" * 49 + "async def g():\n" + "    x = 1\n" * 50
    assert findings("length", ("llm/a.py", source)) == ["llm/a.py:51"]


def test_paths_are_counted_as_radon_counts_them():
    source = """
def f(a, b):
    if a and b or a: ...
    elif b: ...
    for x in [y for y in a if y if x]: ...
    while a: ...
    try: ...
    except E: ...
    assert a
    match a:
        case 1: ...
        case _: ...
    return 1 if a else 2
"""
    tree = Module.of("llm/a.py", source).tree
    assert vocabulary.complexity(tree.body[0]) == 15


def branchy(paths: int) -> str:
    return "class A:\n    def f(self):\n" + "        if x: ...\n" * (paths - 1)


def test_a_complex_function_is_a_finding_until_it_is_listed():
    assert findings("complexity", ("angelos/node/a.py", branchy(15))) == []
    source = ("angelos/node/a.py", branchy(16))
    assert findings("complexity", source) == ["angelos/node/a.py:2"]
    assert findings("complexity", source, complex_={"node:A.f": "why"}) == []


def test_an_entry_that_nothing_needs_is_a_finding():
    source = ("angelos/node/a.py", branchy(15))
    assert len(findings("table", source, complex_={"node:A.f": "why"})) == 1
    assert len(findings("table", source, prose={"node:A.f": "why"})) == 1


@pytest.mark.parametrize(
    "line",
    [
        "if 'could not start' in error.detail: ...",
        "if str(error) == 'gone': ...",
        "if str(error).lower().startswith('no'): ...",
        "if error.args[0] != 'x': ...",
        "if fact.data['reason'] == GONE: ...",
        "if (fact.data.get('text', '') or '') in TEXTS: ...",
        "if task.cancel_reason == reason_of(task): ...",
        "if re.search('x', problem.detail): ...",
        "if PATTERN.match(str(problem)): ...",
        "a, _, b = reason.partition(':')",
        "text = str(error).strip()\n    if 'x' in text: ...",
        "try: ...\n    except E as e:\n        x = 'a' in str(e)",
        "match view.reason:\n        case 'x': ...",
        "return [x for x in y if x.message == 'done']",
    ],
)
def test_a_branch_on_the_text_of_a_message_is_seen(line):
    source = ("angelos/hub/a.py", f"def f():\n    {line}\n")
    assert len(findings("prose", source)) == 1
    assert findings("prose", source, prose={"hub:f": "why"}) == []


@pytest.mark.parametrize(
    "line",
    [
        "if error.code == Code.stale: ...",
        "if task.reason == Reason.cancelled: ...",
        "if record.reason == '' or record.reason is None or not record.reason: ...",
        "if 'reason' in fact.data: ...",
        "if len(view.message) > 3 and view.message: ...",
        "if 'x' in text and str(number) == 'x': ...",
        "if 'ended' not in message: ...",
        "print(f'{error.detail}')",
        "if path.endswith('.py'): ...",
        "match command:\n        case CancelTask(reason=reason): ...",
    ],
)
def test_what_reads_no_text_is_no_finding(line):
    assert findings("prose", ("angelos/hub/a.py", f"def f():\n    {line}\n")) == []


def test_a_branch_in_a_function_within_a_function_is_found_once():
    source = "def f():\n    def g():\n        return 'x' in error.detail\n"
    assert findings("prose", ("angelos/hub/a.py", source)) == ["angelos/hub/a.py:3"]


def test_the_program_prints_places_and_figures_and_ends_with_one(tmp_path, capsys, monkeypatch):
    (tmp_path / "angelos" / "hub").mkdir(parents=True)
    (tmp_path / "angelos" / "hub" / "a.py").write_text("def f():\n    return 'x' in e.detail\n")
    monkeypatch.setattr(vocabulary, "ROOT", tmp_path)
    monkeypatch.setattr(
        vocabulary, "measure", lambda modules: measure(modules, complex_={}, prose={})
    )
    assert vocabulary.main([]) == 1
    output = capsys.readouterr().out
    assert "angelos/hub/a.py:2: prose: hub:f branches on a message: 'x' in e.detail" in output
    assert "OVER" in output
    assert vocabulary.main(["--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["holds"] is False
    assert {f["rule"]: f["count"] for f in document["figures"]}["prose"] == 1
    (tmp_path / "angelos" / "hub" / "a.py").write_text("found = 1  # fmt: skip\n")
    monkeypatch.setattr(vocabulary, "WORDS_IN_1000", 1000)
    assert vocabulary.main([]) == 0
    assert "fmt: skip" not in capsys.readouterr().out
    assert vocabulary.main(["--all"]) == 0
    assert "angelos/hub/a.py:1: skip: # fmt: skip" in capsys.readouterr().out
