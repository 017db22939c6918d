"""The watch over principals on real stores: quarantines and flags, each once."""

from __future__ import annotations

from angelos.core.errors import AngelError
from angelos.core.facts import Kind
from angelos.core.ids import START, PrincipalId
from angelos.testing import eventually, make_fact, next_fact

EVE = PrincipalId("agent/eve")
MALLORY = PrincipalId("agent/mallory")


def refusal(actor=EVE):
    data = {"policy_paths": ["angelos.toml"]}
    return make_fact(Kind.proposal_refused, "prop-1", actor=actor, outcome="policy", data=data)


async def test_an_agent_that_touches_the_policy_is_quarantined_once(watch, journal, signals):
    async with watch():
        await journal.append([refusal(), refusal()])
        fact = await next_fact(journal, kind=Kind.principal_quarantined, subject=EVE)
        assert "angelos.toml" in fact.plain()["reason"]
    async with watch():  # a restart does not do it again
        await journal.append([refusal(MALLORY)])
        await next_fact(journal, kind=Kind.principal_quarantined, subject=MALLORY)
    assert [who for who, _ in signals.asked] == [EVE, MALLORY]


async def test_a_quarantine_that_a_crash_prevented_is_made_up_for(watch, journal, signals):
    await journal.append([refusal(), make_fact(Kind.proposal_merged, "prop-2")])
    async with watch():
        await next_fact(journal, kind=Kind.principal_quarantined, subject=EVE)
    assert [who for who, _ in signals.asked] == [EVE]


async def test_a_quarantine_that_fails_is_asked_for_again_and_others_too(watch, journal, signals):
    """Whatever went wrong, the watch over principals goes on."""
    ask, broken = signals.quarantine, iter([RuntimeError("a bug"), AngelError("a refusal")])

    async def quarantine(principal, reason):
        if (error := next(broken, None)) is not None:
            raise error
        await ask(principal, reason)

    signals.quarantine = quarantine
    async with watch():
        await journal.append([refusal()])
        await next_fact(journal, kind=Kind.principal_quarantined, subject=EVE)
        await journal.append([refusal(MALLORY)])
        await next_fact(journal, kind=Kind.principal_quarantined, subject=MALLORY)
    assert [who for who, _ in signals.asked] == [EVE, MALLORY]


def denials(agent):
    return [
        make_fact(Kind.task_finished, f"task-{agent}-{i}", actor="node/exec1", on_behalf_of=agent,
                  outcome="denied") for i in range(3)
    ]  # fmt: skip


async def test_repeated_denials_are_flagged_in_the_journal_once(watch, journal, signals):
    async with watch():
        await journal.append(denials(EVE))
        fact = await next_fact(journal, kind=Kind.principal_flagged, subject=EVE)
        assert fact.plain()["evidence"]["score"] == 12
    async with watch():
        await journal.append(denials(MALLORY))
        await next_fact(journal, kind=Kind.principal_flagged, subject=MALLORY)
    flags = await journal.read(START, kinds={Kind.principal_flagged})
    assert [fact.subject for fact in flags] == [EVE, MALLORY]
    assert signals.asked == []


async def test_a_watch_that_fails_starts_again(watch, journal, monkeypatch, caplog):
    def step(*_):
        raise ZeroDivisionError

    async with watch():
        with monkeypatch.context() as patch:
            patch.setattr("angelos.governance.service.step", step)
            await journal.append([refusal()])
            await eventually(lambda: "has ended" in caplog.text, "the alarm")
        await next_fact(journal, kind=Kind.principal_quarantined, subject=EVE)
