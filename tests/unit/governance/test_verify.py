"""An export says which entry was changed, missing, moved or added."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from angelos.core.errors import Tampered
from angelos.core.facts import Kind
from angelos.core.ids import FactId, Offset
from angelos.core.messages import encode
from angelos.core.signing import SigningKey
from angelos.governance.checkpoint import open_note, sign
from angelos.governance.merkle import Frontier, leaf_hash
from angelos.governance.models import ExportEntry, export_lines, line_of, new_entry
from angelos.governance.verify import last_note, verify
from angelos.testing import make_fact

KEY = SigningKey(bytes(range(32)))
SIGNED_AT = (3, 8, 10)
HEAD = 1 + len(SIGNED_AT)  # lines before the first entry


def facts(count=10):
    return [
        msgspec.structs.replace(
            make_fact(Kind.task_finished, f"task-{i}", outcome="ok", data={"n": i}),
            id=FactId(f"fact-{i:032x}"),
            offset=Offset(f"1000-{i}"),
        )
        for i in range(count)
    ]


def export(signed_at=SIGNED_AT, count=10, key=KEY):
    entries = [new_entry(fact) for fact in facts(count)]
    leaves = [entry.leaf for entry in entries]
    notes = [sign(key, n, Frontier().extend(leaves[:n]).root()) for n in signed_at]
    rows = [(i, entry.body, entry.leaf) for i, entry in enumerate(entries)]
    return list(export_lines(key.public, notes, rows))


def entry_line(index, subject):
    body = encode(make_fact(Kind.task_finished, subject))
    return line_of(ExportEntry(index, body, leaf_hash(body).hex()))


def test_a_good_export():
    report = verify(export())
    assert report.ok, report
    assert (report.entries, report.checkpoints, report.size) == (10, 3, 10)
    assert report.lines()[0].startswith("ok: 10 entries, 3 checkpoints")
    assert verify(export(), key=KEY.public.raw).ok


def test_an_empty_log():
    assert verify(export(signed_at=(0,), count=0)).ok


def test_a_changed_body_names_its_entry_and_no_other():
    lines = export()
    entry = json.loads(lines[HEAD + 5])
    body = bytearray(new_entry(facts()[5]).body)
    body[-3] ^= 1
    lines[HEAD + 5] = line_of(ExportEntry(5, bytes(body), entry["leaf"]))
    report = verify(lines)
    assert not report.ok
    assert [(p.first, p.last) for p in report.problems] == [(5, 5)]
    assert "entry 5 was changed" in report.problems[0].detail


def test_a_missing_entry_is_named():
    lines = export()
    del lines[HEAD + 4]
    report = verify(lines)
    assert "entry 4 is missing" in report.problems[0].detail
    assert (report.problems[0].first, report.problems[0].last) == (4, 4)


@pytest.mark.parametrize("gone", range(10))
def test_a_missing_entry_is_all_that_is_named(gone):
    lines = export()
    del lines[HEAD + gone]
    report = verify(lines)
    named = {i for p in report.problems for i in range(p.first, p.last + 1)}
    assert named <= ({gone} if gone < 9 else {9})
    assert f"entry {gone} is missing" in report.problems[0].detail


def test_a_checkpoint_of_another_log_is_named():
    other = export(key=SigningKey(bytes(32)))
    lines = export()
    lines[2] = other[2]
    (problem,) = verify(lines).problems
    assert problem.line == 3
    assert "of another log, angelos/audit/" in problem.detail


def test_missing_last_entries_are_named():
    report = verify(export()[:-2])
    assert "entries 8 to 9 are missing" in report.problems[0].detail


def test_entries_that_changed_places_are_named():
    lines = export()
    lines[HEAD + 4], lines[HEAD + 5] = lines[HEAD + 5], lines[HEAD + 4]
    report = verify(lines)
    assert {p.first for p in report.problems} == {4}
    assert any("added or moved" in p.detail for p in report.problems)


def test_an_added_entry_is_named():
    doubled = export()
    doubled.insert(HEAD + 7, doubled[HEAD + 6])
    report = verify(doubled)
    assert report.problems[0].first == 6
    assert "added or moved" in report.problems[0].detail
    behind = [*export(), entry_line(10, "task-new")]
    report = verify(behind)
    assert "entries from 10 on were added" in report.problems[0].detail


def test_an_entry_changed_with_its_hash_names_the_smallest_signed_range():
    lines = export()
    lines[HEAD + 5] = entry_line(5, "task-forged")
    report = verify(lines)
    assert [(p.first, p.last) for p in report.problems] == [(3, 7)]
    assert "from 3 to 7 was changed together with its hash" in report.problems[0].detail
    assert report.size == 3


def test_a_log_that_was_set_back_is_told_by_an_older_export():
    old, new = export(signed_at=(3, 8), count=8), export()
    note = last_note(old)
    assert verify(new, previous=note).ok
    assert verify(old, previous=note).ok
    report = verify(export(signed_at=(3,), count=3), previous=note)
    assert [(p.first, p.last) for p in report.problems] == [(3, 7)]
    assert "entries 3 to 7 are missing" in report.problems[0].detail
    assert "set back" in report.problems[0].detail


def test_a_log_that_was_written_anew_is_told_by_an_older_export():
    note = last_note(export(signed_at=(3, 8), count=8))
    entries = [new_entry(fact) for fact in facts(12)][2:]  # another beginning, well signed
    tree = Frontier().extend(entry.leaf for entry in entries)
    rows = [(i, entry.body, entry.leaf) for i, entry in enumerate(entries)]
    forked = list(export_lines(KEY.public, [sign(KEY, 10, tree.root())], rows))
    assert verify(forked).ok
    (problem,) = verify(forked, previous=note).problems
    assert (problem.first, problem.last) == (0, 7)
    assert "written again" in problem.detail


def test_an_older_export_of_another_log_proves_nothing():
    (problem,) = verify(export(), previous=last_note(export(key=SigningKey(bytes(32))))).problems
    assert "of another log" in problem.detail
    with pytest.raises(Tampered, match="no checkpoint"):
        last_note(export()[:1])


def test_an_entry_left_out_and_the_rest_renumbered_is_found():
    lines = export()
    rest = [json.loads(line) for line in lines[HEAD:]]
    kept = [new_entry(f) for i, f in enumerate(facts()) if i != 4]
    assert len(rest) == 10
    renumbered = [line_of(ExportEntry(i, e.body, e.leaf.hex())) for i, e in enumerate(kept)]
    report = verify([*lines[:HEAD], *renumbered])
    assert not report.ok
    assert (report.problems[0].first, report.problems[0].last) == (3, 7)


def test_another_key_is_found_only_if_one_knows_the_right_one():
    other = SigningKey(bytes(32))
    forged = export(key=other)
    assert verify(forged).ok
    report = verify(forged, key=KEY.public.raw)
    assert not report.ok
    assert "not the one that was expected" in report.problems[0].detail


def test_without_a_checkpoint_nothing_is_proven():
    assert not verify(export(signed_at=())).ok
    assert not verify(export(signed_at=(3, 8))).ok
    assert not verify([]).ok
    assert not verify([b"\n"]).ok


WHOLE = b"".join(export(signed_at=(2, 4), count=4))


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, len(WHOLE) - 1), flip=st.integers(1, 255))
@example(place=WHOLE.index(b'"index":3') + 8, flip=1)
def test_every_change_of_a_byte_is_found(place, flip):
    changed = bytearray(WHOLE)
    changed[place] ^= flip
    report = verify(bytes(changed).splitlines(keepends=True))
    assert not report.ok
    start = 0
    for number, line in enumerate(WHOLE.splitlines(keepends=True)):
        inside = start <= place < start + len(line) - 1
        # 0x0A and 0x0D change the lines themselves; then the entry is still the first named.
        if inside and number >= 3:
            entry = number - 3
            assert any(
                p.first is not None and p.first <= entry <= p.last for p in report.problems
            ), (entry, report.problems)
        start += len(line)


@given(st.integers(0, len(WHOLE) - 1), st.sampled_from([b" ", b"\n", b"0", b"A", b"="]))
@settings(deadline=None)
def test_every_added_or_removed_byte_is_found(place, extra):
    added = WHOLE[:place] + extra + WHOLE[place:]
    removed = WHOLE[:place] + WHOLE[place + 1 :]
    for changed in (added, removed):
        if changed != WHOLE:
            assert not verify(changed.splitlines(keepends=True)).ok


@pytest.mark.parametrize("change", [
    lambda note: note.replace("\n3\n", "\n03\n"),
    lambda note: note.replace("\n3\n", "\n4\n"),
    lambda note: note + "\n",
    lambda note: note.replace("angelos/audit", "angelos/other", 1),
    lambda note: note[:-10] + "A" + note[-9:],
    lambda note: "",
    lambda note: note + note.splitlines()[-1] + "\n",
])  # fmt: skip
def test_a_changed_note_is_refused(change):
    note = sign(KEY, 3, bytes(32))
    assert open_note(note, KEY.public).size == 3
    with pytest.raises(Tampered):
        open_note(change(note), KEY.public)
    with pytest.raises(Tampered):
        open_note(note, SigningKey(bytes(32)).public)


def test_the_note_is_of_the_c2sp_form():
    """https://c2sp.org/signed-note: text, empty line, em dash, name, base64(key hash || sig)."""
    text, _, signatures = sign(KEY, 7, bytes(32)).partition("\n\n")
    origin, size, root = text.split("\n")
    assert origin.startswith("angelos/audit/")
    assert size == "7"
    assert root == "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    assert signatures.startswith(f"\u2014 {origin} ")
    assert signatures.endswith("\n")
