"""How long what grows is kept."""

from __future__ import annotations

import msgspec
import pytest

from angelos.core.errors import InvalidInput
from angelos.core.retention import DAY_S, RetentionConfig, due
from angelos.wiring.settings import load

NOW = 1_000 * DAY_S


@pytest.mark.parametrize(("config", "journal", "outputs"), [
    (RetentionConfig(), 30, 90),
    (RetentionConfig(outputs_days=7), 7, 7),  # the journal holds outputs too
    (RetentionConfig(outputs_days=0), 30, None),
    (RetentionConfig(journal_days=400), 90, 90),
])  # fmt: skip
def test_what_is_due(config, journal, outputs):
    what = due(config, NOW)
    assert what.journal_before == NOW - journal * DAY_S
    assert what.outputs_before == (None if outputs is None else NOW - outputs * DAY_S)
    assert what.files_before == NOW - 7 * DAY_S
    assert what.journal_bytes == 256_000_000


def test_it_stands_in_the_configuration_file(tmp_path):
    (tmp_path / "angelos.toml").write_text("[retention]\njournal_mb = 64\noutputs_days = 0\n")
    settings = load({}, data_dir=tmp_path)
    assert settings.retention == RetentionConfig(journal_mb=64, outputs_days=0)


@pytest.mark.parametrize("line", [
    "journal_days = 0", "journal_mb = 1", "outputs_days = -1", "files_days = 0.5", "days = 3",
    "journal_mb = nan", "journal_days = 'a'",
])  # fmt: skip
def test_what_cannot_be_is_refused(tmp_path, line):
    (tmp_path / "angelos.toml").write_text(f"[retention]\n{line}\n")
    with pytest.raises(InvalidInput, match=r"angelos\.toml"):
        load({}, data_dir=tmp_path)


def test_the_defaults_are_within_the_bounds():
    body = msgspec.json.encode(RetentionConfig())
    assert msgspec.json.decode(body, type=RetentionConfig) == RetentionConfig()
