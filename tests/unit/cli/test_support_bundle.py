"""A support bundle holds what helps, and no secret, wherever one was."""

from __future__ import annotations

import io
import json
import secrets
import tarfile

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec

from angelos.adapters.host.datadir import DataDir
from angelos.adapters.identity.authority import key_pem
from angelos.cli import bundle
from angelos.cli.commands.support_bundle import support_bundle
from angelos.cli.scrub import REMOVED, Scrubber

PLANTED = {name: f"{name}-{secrets.token_urlsafe(24)}" for name in (
    "owner", "postgres", "valkey", "grant", "person", "environment", "cookie", "otel",
)}  # fmt: skip


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A data directory and an environment with a secret in every place."""
    data = DataDir(tmp_path / "data")
    data.create()
    pem = key_pem(ec.generate_private_key(ec.SECP256R1())).decode()
    raw = secrets.token_bytes(32)
    dsn = f"postgresql://ada:{PLANTED['postgres']}@db/angelos"
    url = f"rediss://:{PLANTED['valkey']}@cache:6379/0"
    (data.root / "system.json").write_text(
        json.dumps({"token": PLANTED["owner"], "postgres": dsn, "valkey": url})
    )
    for folder in (data.keys, data.jupyter, data.node("exec1"), data.logs):
        folder.mkdir(parents=True, exist_ok=True)
    (data.keys / "grant.key").write_bytes(raw)
    (data.keys / "ca.pem").write_text(pem)
    (data.node("exec1") / "identity.pem").write_text(pem)
    (data.jupyter / "cookie_secret").write_text(PLANTED["cookie"])
    (data.root / "angelos.toml").write_text('[hub]\nhost = "127.0.0.1"\n')
    (data.workspace / "notes.md").write_text("a person's text")
    monkeypatch.setenv("ANGELOS_POSTGRES_DSN", dsn)
    monkeypatch.setenv("ANGELOS_VALKEY_URL", url)
    monkeypatch.setenv("ANGELOS_TOKEN", PLANTED["person"])
    monkeypatch.setenv("MY_DATABASE_PASSWORD", PLANTED["environment"])
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"x-key={PLANTED['otel']}")
    lines = [
        "2026-11-28 INFO angelos: an ordinary line",
        f"http://127.0.0.1:8888/lab?token={PLANTED['owner']}",
        f"cannot connect to {dsn} nor {url}",
        f"Authorization: token {PLANTED['person']}",
        f"cookie {PLANTED['cookie']} and {PLANTED['environment']} and {PLANTED['otel']}",
        f"key {raw.hex()}", pem, pem.splitlines()[1],
        json.dumps({"event": "x", "token": PLANTED["grant"], "trace_id": "a" * 32}),
        json.dumps(json.dumps({"password": PLANTED["grant"]})),
    ]  # fmt: skip
    (data.logs / "server.log").write_text("\n".join(lines))
    (data.logs / "exec1.log.1").write_text("\n".join(reversed(lines)))
    (data.logs / "link.log").symlink_to(data.keys / "ca.pem")
    return data, [*PLANTED.values(), raw.hex(), *pem.splitlines()[1:-1]]


def contents(body: bytes) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        assert all(member.isfile() and member.mode == 0o600 for member in archive)
        return {
            member.name: archive.extractfile(member).read().decode()
            for member in archive.getmembers()
        }


def run(*args: str):
    return CliRunner().invoke(support_bundle, [*args, "--no-doctor", "--json"])


def test_no_planted_secret_is_in_it_and_what_helps_is(planted, tmp_path):
    data, planted_secrets = planted
    file = tmp_path / "bundle.tar.gz"
    done = run(str(file), "--data-dir", str(data.root))
    assert done.exit_code == 0, done.output
    files = contents(file.read_bytes())
    everything = "\n".join([*files, *files.values(), done.output])
    assert not [secret for secret in planted_secrets if secret in everything]
    assert "a person's text" not in everything
    log = files["angelos-support/logs/server.log"]
    assert "an ordinary line" in log
    assert "a" * 32 in log  # ids of traces stay
    assert "postgresql://ada:[removed]@db/angelos" in log
    assert "angelos-support/logs/exec1.log.1" in files
    assert not any("link" in name or "key" in name or ".pem" in name for name in files)
    assert json.loads(files["angelos-support/about.json"])["data_dir"] == str(data.root)
    assert json.loads(files["angelos-support/packages.json"])["msgspec"]
    assert "keys" in json.loads(files["angelos-support/disk.json"])["bytes"]
    assert "error" in json.loads(files["angelos-support/system/status.json"])  # nothing runs
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_that_exists_is_left_alone(planted, tmp_path):
    data, _ = planted
    file = tmp_path / "mine"
    file.write_text("mine")
    done = run(str(file), "--data-dir", str(data.root))
    assert done.exit_code == 1
    assert json.loads(done.stdout)["code"] == "conflict"
    assert file.read_text() == "mine"


def test_a_directory_that_does_not_exist_or_is_damaged_makes_a_bundle_too(tmp_path):
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "processes.json").write_text("{")
    (tmp_path / "damaged" / "system.json").write_bytes(b"\xff")
    for name in ("absent", "damaged"):
        done = run(str(tmp_path / f"{name}.tgz"), "--data-dir", str(tmp_path / name))
        assert done.exit_code == 0, done.output
    assert not (tmp_path / "absent").exists()


def test_only_the_end_of_a_long_log_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "LOG_BYTES", 10)
    data = DataDir(tmp_path)
    data.logs.mkdir(parents=True)
    (data.logs / "a.log").write_text("beginning" * 100 + "\nthe end.")
    ((name, body),) = bundle.logs(data)
    assert (name, body) == ("a.log", b"the end.")


@pytest.mark.parametrize(
    "text",
    [
        "token=S3cretValue", "api_key: S3cretValue", '"password": "S3cretValue"',
        "X-Api-Key='S3cretValue'", "Authorization: Bearer S3cretValue",
        "?access_token=S3cretValue&x",
        "Cookie: S3cretValue", "redis://:S3cretValue@h", "https://u:S3cretValue@h/p",
        r"{\"secret\": \"S3cretValue\"}", "PGPASSWORD=S3cretValue", "password=S3cretValue host=x",
    ],
)  # fmt: skip
def test_what_is_assigned_to_the_name_of_a_secret_is_removed(text):
    assert "S3cretValue" not in Scrubber()(text)
    assert REMOVED in Scrubber()(text)


@pytest.mark.parametrize(
    "text",
    [
        "GET /tasks: 200", "task-01a22081b0047f2ab01c689240130e66",
        "b89547e8e5a40c9d563dd961cadaade0",
        "tokens: 4", "/usr/lib/python3.11/site-packages/jupyter_server/serverapp.py", "token=...",
        "sha256:" + "0123456789abcdef" * 4, "http://127.0.0.1:8888/lab",
    ],
)  # fmt: skip
def test_what_helps_stays(text):
    assert Scrubber(["", "abc"])(text) == text


def test_a_hostile_text_takes_no_long_time():
    scrub = Scrubber(["x" * 40])
    for text in ("-----BEGIN A-----" * 5_000, "token=" * 50_000, "a://" * 50_000, '\\"' * 100_000):
        scrub(text)
