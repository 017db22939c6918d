"""What a consumer of a queue hands out next, without a store."""

from __future__ import annotations

from angelos.adapters.stores.backlog import FRESH_S, Backlog, Row
from angelos.core.envelopes import EnvelopeHeader, Lane, RoutedEnvelope
from angelos.core.ids import Offset, PrincipalId

ADA, BOB = PrincipalId("agent/ada"), PrincipalId("agent/bob")


def row(number, source=ADA, lane=Lane.message, nacks=0, due=0.0):
    header = EnvelopeHeader(
        id=f"m{number}", source=source, destination=PrincipalId("node/a"), lane=lane,
        sequence=number, codec="raw",
    )  # fmt: skip
    return Row(Offset(f"{number}-0"), RoutedEnvelope(header, b""), nacks, due)


def filled(*rows, lane=Lane.message):
    backlog = Backlog()
    for other in Lane:
        backlog.add(other, [], "", more=False, now=0.0)
    backlog.add(lane, rows, rows[-1].position, more=False, now=0.0)
    return backlog


def taken(backlog):
    numbers = []
    while (next_row := backlog.next()) is not None:
        backlog.hand_out(next_row)
        numbers.append(next_row.envelope.header.sequence)
    return numbers


def test_a_retry_holds_its_sender_and_what_it_held_is_read_again():
    backlog = filled(row(1, nacks=1, due=9.0), row(2), row(3, BOB), row(4))
    assert taken(backlog) == [3]
    assert (backlog.due_retries(8.0), backlog.due_retries(9.0)) == ([], ["1-0"])
    assert not any(backlog.starts())
    backlog.settle([Offset("1-0")])
    assert "2-0" in backlog.starts()
    backlog.add(Lane.message, [row(2), row(3, BOB), row(4)], "4-0", more=False, now=0.0)
    assert taken(backlog) == [2, 4], "what was handed out does not come again"


def test_what_was_read_long_ago_is_read_again_before_it_is_handed_out():
    backlog = filled(row(1), row(2))
    backlog.hand_out(backlog.next())
    backlog.refresh(FRESH_S)
    assert not any(backlog.starts())
    backlog.refresh(FRESH_S * 2)
    assert backlog.next() is None
    assert [start for start in backlog.starts() if start == "2-0"] == ["2-0"]


def test_control_comes_first_and_the_rest_by_age():
    backlog = filled(row(2), row(5))
    backlog.add(Lane.log, [row(1, lane=Lane.log)], "1-0", more=False, now=0.0)
    backlog.add(Lane.control, [row(9, lane=Lane.control)], "9-0", more=False, now=0.0)
    assert taken(backlog) == [9, 1, 2, 5]


def test_news_while_a_lane_was_read_are_not_forgotten():
    backlog = filled(row(1))
    assert taken(backlog) == [1]
    assert not any(backlog.starts())
    backlog.changed()
    assert all(backlog.starts())
