"""Tokens come from a file, from standard input, or from the environment."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import subprocess
import sys

import pytest

from angelos.cli.reading import read_secret, read_token
from angelos.core.errors import InvalidInput


def test_a_token_is_the_first_line_of_a_file(tmp_path):
    (tmp_path / "t").write_text("  angel_x \nsecond\n")
    assert read_token(str(tmp_path / "t")) == "angel_x"


def test_a_token_from_standard_input_leaves_the_rest_of_it(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("angel_x\nprint(1)\n"))
    assert read_secret("-") == "angel_x"
    assert sys.stdin.read() == "print(1)\n"


def test_on_a_terminal_it_is_asked_for_and_not_shown():
    terminal, inside = pty.openpty()
    program = "from angelos.cli.reading import read_secret\nprint(read_secret('-').upper())"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=inside, stdout=subprocess.PIPE,
        stderr=inside, start_new_session=True, text=True,
    ) as process:  # fmt: skip
        os.close(inside)
        shown = b""
        while b"Token" not in shown:
            shown += os.read(terminal, 1024)
        os.write(terminal, b"angel_x\n")
        assert process.communicate(timeout=60)[0] == "ANGEL_X\n"
    os.set_blocking(terminal, False)
    with contextlib.suppress(OSError):  # nothing more was shown
        shown += os.read(terminal, 1024)
    os.close(terminal)
    assert b"angel_x" not in shown


def test_without_a_file_it_is_that_of_the_environment_or_the_owners(monkeypatch):
    monkeypatch.setenv("ANGELOS_TOKEN", "angel_y")
    assert read_token(None) == "angel_y"
    monkeypatch.delenv("ANGELOS_TOKEN")
    assert read_token(None) == ""


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_file_without_a_token_is_refused(tmp_path, content):
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(InvalidInput):
        read_secret(str(tmp_path / "t"))


def test_a_token_put_where_its_file_belongs_is_not_repeated():
    token = "angel_" + "s" * 200
    with pytest.raises(InvalidInput) as caught:
        read_secret(token)
    assert token not in str(caught.value)
