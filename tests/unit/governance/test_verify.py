"""An export says which entry was changed, missing, moved or added."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from angelos.core.errors import InvalidInput, Tampered
from angelos.core.facts import Kind
from angelos.core.ids import FactId, Offset, PrincipalId
from angelos.core.sequences import FactSequence
from angelos.governance.log.checkpoint import (
    Checkpoint,
    LogKeys,
    WitnessKey,
    cosigned,
    cosigners,
    open_checkpoint,
)
from angelos.governance.log.export import ExportEntry, entry_line, export_lines, line_of
from angelos.governance.log.merkle import Frontier
from angelos.governance.log.models import EntryRow, new_entry
from angelos.governance.log.notes import Algorithm, NoteKey, parse_note
from angelos.governance.log.proof import parse_proof
from angelos.governance.log.verify import Trust, last_note, verify
from angelos.testing import make_fact

ORIGIN = "angelos/audit/one"
KEYS = LogKeys(ORIGIN, bytes(range(32)), bytes(range(1, 33)))
OTHER = LogKeys(ORIGIN, bytes(32), bytes(32))
ELSEWHERE = LogKeys("angelos/audit/other", bytes(32), bytes(32))
TRUST = Trust(epochs=[KEYS.epoch])
AT = 1_700_000_000
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


def row(index, fact):
    entry = new_entry(fact, b"%032d" % index)
    return EntryRow(index, entry.body, entry.leaf, entry.salt, entry.data)


def sign(keys, size, root, at=AT):
    return keys.sign(Checkpoint(keys.epoch[0].name, size, root), at)


def export(signed_at=SIGNED_AT, count=10, keys=KEYS, entries=None):
    entries = facts(count) if entries is None else entries
    rows = [row(i, fact) for i, fact in enumerate(entries)]
    leaves = [r.leaf for r in rows]
    notes = [sign(keys, n, Frontier().extend(leaves[:n]).root()) for n in signed_at]
    return list(export_lines(keys.epoch[0].name, [keys.epoch], notes, rows))


def line_for(index, subject):
    fact = make_fact(Kind.task_finished, subject)
    return line_of(entry_line(row(index, msgspec.structs.replace(fact, offset=Offset("9-9")))))


def test_a_good_export():
    report = verify(export())
    assert report.ok, report
    assert (report.entries, report.checkpoints, report.size) == (10, 3, 10)
    assert report.lines()[0].startswith("ok: 10 entries, 3 checkpoints, log angelos/audit/one")
    assert verify(export(), TRUST).ok


def test_an_empty_log():
    assert verify(export(signed_at=(0,), count=0)).ok


def changed_line(line, **fields):
    """A line with other fields, in its canonical form."""
    entry = msgspec.json.decode(line, type=ExportEntry)
    return line_of(msgspec.structs.replace(entry, **fields))


def test_a_changed_body_names_its_entry_and_no_other():
    lines = export()
    body = lines[HEAD + 5].partition(b'"body":')[2].partition(b',"salt"')[0]
    lines[HEAD + 5] = changed_line(
        lines[HEAD + 5], body=msgspec.Raw(body.replace(b"task-5", b"task-6"))
    )
    report = verify(lines)
    assert not report.ok
    assert [(p.first, p.last) for p in report.problems] == [(5, 5)]
    assert "entry 5 was changed" in report.problems[0].detail


def test_data_that_were_exchanged_name_their_entry_and_erased_ones_are_counted():
    lines = export()
    lines[HEAD + 5] = changed_line(lines[HEAD + 5], data=b"\x80")
    lines[HEAD + 6] = changed_line(lines[HEAD + 6], salt=bytes(32))
    report = verify(lines, TRUST)
    assert [(p.first, p.last) for p in report.problems] == [(5, 5), (6, 6)]
    assert "not those that it commits to" in report.problems[0].detail
    lines = export()
    lines[HEAD + 5] = changed_line(lines[HEAD + 5], data=None, salt=None)
    report = verify(lines, TRUST)
    assert (report.ok, report.erased) == (True, 1)


def test_what_a_writer_counted_and_the_log_lacks_is_named():
    def counted(i, fact):
        writer = FactSequence(writer=PrincipalId("node/a"), life=1, number=i + 1)
        return msgspec.structs.replace(fact, sequence=writer)

    entries = [counted(i, fact) for i, fact in enumerate(facts(13)) if i not in {4, 5, 8}]
    report = verify(export(entries=entries), TRUST)
    assert report.ok
    assert [(o.index, o.kind, o.missing) for o in report.omissions] == [
        (4, "gap", 2),
        (6, "gap", 1),
    ]
    assert "entry 4: gap in the sequence of node/a, 2 missing" in report.lines()


def test_a_witness_counts_when_it_signed_the_last_checkpoint():
    one, two = WitnessKey("w.example/1", bytes(32)), WitnessKey("w.example/2", bytes(range(32)))
    leaves = [row(i, fact).leaf for i, fact in enumerate(facts())]
    tree = Checkpoint(ORIGIN, 10, Frontier().extend(leaves).root())
    note = cosigned(KEYS.sign(tree, AT), [one.cosign(tree, AT)])
    assert cosigned(note, [one.cosign(tree, AT + 1)]) != note
    rows = [row(i, fact) for i, fact in enumerate(facts())]
    lines = list(export_lines(ORIGIN, [KEYS.epoch], [note], rows))
    witnesses = [one.public, two.public]
    trust = Trust(epochs=[KEYS.epoch], witnesses=witnesses, quorum=1)
    report = verify(lines, trust)
    assert (report.ok, report.cosigners) == (True, ("w.example/1",))
    assert "cosigned by w.example/1" in report.lines()
    report = verify(lines, Trust(epochs=[KEYS.epoch], witnesses=witnesses, quorum=2))
    assert not report.ok
    assert "1 of the witnesses" in report.problems[0].detail
    # A witness's signature of another tree, or another's under its name, is none.
    other = Checkpoint(ORIGIN, 10, bytes(32))
    forged = cosigned(KEYS.sign(tree, AT), [two.cosign(other, AT)])
    assert cosigners(forged, witnesses) == []


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
    other = export(keys=ELSEWHERE)
    lines = export()
    lines[2] = other[2]
    (problem,) = verify(lines).problems
    assert problem.line == 3
    assert "of another log, 'angelos/audit/other'" in problem.detail


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
    behind = [*export(), line_for(10, "task-new")]
    report = verify(behind)
    assert "entries from 10 on were added" in report.problems[0].detail


def test_an_entry_changed_with_its_hash_names_the_smallest_signed_range():
    lines = export()
    lines[HEAD + 5] = line_for(5, "task-forged")
    report = verify(lines)
    assert [(p.first, p.last) for p in report.problems] == [(3, 7)]
    assert "from 3 to 7 was changed together with its hash" in report.problems[0].detail
    assert report.size == 3


def test_a_log_that_was_set_back_is_told_by_an_older_export():
    old, new = export(signed_at=(3, 8), count=8), export()
    note = last_note(old)
    assert verify(new, Trust(previous=note)).ok
    assert verify(old, Trust(previous=note)).ok
    report = verify(export(signed_at=(3,), count=3), Trust(previous=note))
    assert [(p.first, p.last) for p in report.problems] == [(3, 7)]
    assert "entries 3 to 7 are missing" in report.problems[0].detail
    assert "set back" in report.problems[0].detail


def test_a_log_that_was_written_anew_is_told_by_an_older_export():
    note = last_note(export(signed_at=(3, 8), count=8))
    forked = export(signed_at=(10,), entries=facts(12)[2:])  # another beginning, well signed
    assert verify(forked).ok
    (problem,) = verify(forked, Trust(previous=note)).problems
    assert (problem.first, problem.last) == (0, 7)
    assert "written again" in problem.detail


def test_an_older_export_of_another_log_proves_nothing():
    (problem,) = verify(export(), Trust(previous=last_note(export(keys=ELSEWHERE)))).problems
    assert "of another log" in problem.detail
    with pytest.raises(Tampered, match="no checkpoint"):
        last_note(export()[:1])


def test_an_entry_left_out_and_the_rest_renumbered_is_found():
    lines = export()
    rest = [fact for i, fact in enumerate(facts()) if i != 4]
    renumbered = [line_of(entry_line(row(i, fact))) for i, fact in enumerate(rest)]
    report = verify([*lines[:HEAD], *renumbered])
    assert not report.ok
    assert (report.problems[0].first, report.problems[0].last) == (3, 7)


def test_another_key_is_found_only_if_one_knows_the_right_one():
    forged = export(keys=OTHER)
    assert verify(forged).ok
    report = verify(forged, TRUST)
    assert not report.ok
    assert "not those that were expected" in report.problems[0].detail


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
@example(place=WHOLE.index(b'","', 100), extra=b" ")  # behind a key
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
    lambda note: note[:-10] + ("A" if note[-10] != "A" else "B") + note[-9:],
    lambda note: "",
    lambda note: note.replace("\u2014 ", "- "),
    lambda note: "\n".join(note.split("\n")[:-2]) + "\n",  # without ML-DSA-44
    lambda note: note.replace("\n\n", "\nx\n\n"),
    lambda note: note + 40 * (note.splitlines()[-1] + "\n"),
])  # fmt: skip
def test_a_changed_note_is_refused(change):
    note = sign(KEYS, 3, bytes(32))
    assert open_checkpoint(note, [KEYS.epoch]).size == 3
    with pytest.raises(Tampered):
        open_checkpoint(change(note), [KEYS.epoch])
    for epochs in ([OTHER.epoch], [ELSEWHERE.epoch], [], [()]):
        with pytest.raises(Tampered):
            open_checkpoint(note, epochs)


def test_a_signature_of_somebody_else_below_is_ignored():
    """As C2SP asks: verifiers ignore signatures from keys that they do not know."""
    note = sign(KEYS, 3, bytes(32))
    stranger = WitnessKey("stranger.example", bytes(32))
    signed = cosigned(note, [stranger.cosign(Checkpoint(ORIGIN, 3, bytes(32)), AT)])
    assert open_checkpoint(signed, [KEYS.epoch]).size == 3


def test_the_note_is_of_the_c2sp_form():
    """https://c2sp.org/signed-note: text, empty line, em dash, name, base64(key hash || sig)."""
    text, _, signatures = sign(KEYS, 7, bytes(32)).partition("\n\n")
    origin, size, root = text.split("\n")
    assert origin == ORIGIN
    assert size == "7"
    assert root == "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    assert all(line.startswith(f"\u2014 {origin} ") for line in signatures.splitlines())
    plain, quantum = parse_note(sign(KEYS, 7, bytes(32))).signatures
    assert (len(plain.signature), len(quantum.signature)) == (64, 8 + 2420)


def test_a_key_of_another_log_is_read():
    """The Go checksum database's published verifier key."""
    text = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
    key = NoteKey.parse(text)
    assert (key.name, key.algorithm, key.vkey) == ("sum.golang.org", Algorithm.ed25519, text)


@pytest.mark.parametrize("text", [
    "", "x", "a+b+c", "sum.golang.org+033de0af+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
    "sum.golang.org+033de0ae+Ac4zctda0e5eza", " +00000000+AQ==", "a b+00000000+AQ==",
    "a+00000000+/w==",
])  # fmt: skip
def test_a_text_that_is_no_key_is_refused(text):
    with pytest.raises(InvalidInput):
        NoteKey.parse(text)


@given(st.text(max_size=200))
@settings(deadline=None)
def test_any_text_is_a_note_or_refused(text):
    with contextlib.suppress(Tampered):
        assert parse_note(text).encoded == text
    with contextlib.suppress(Tampered):
        assert parse_proof(text).encoded == text
