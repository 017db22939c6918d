"""What `angelos task run` prints while a task runs."""

from __future__ import annotations

import pytest

from angelos.cli.commands.task import _limits, _Printer, run
from angelos.cli.output import masked
from angelos.cli.reading import read_source
from angelos.client import Restarted
from angelos.core.errors import InvalidInput
from angelos.core.runs import Output


def test_a_task_that_begins_anew_is_announced_on_standard_error(capfdbinary):
    printer = _Printer()
    printer.write(Output("stdout", b"half a li"))
    printer.restart(Restarted(2, "exec1"))
    printer.write(Output("stdout", b"a whole line\n"))
    printer.end()
    out, err = capfdbinary.readouterr()
    assert out == b"half a li\na whole line\n"
    assert err == b"[exec1 was restarted: running again, attempt 2]\n"


@pytest.mark.parametrize(
    ("timeout", "memory", "says"),
    [
        (-1.0, None, "--timeout must lie between 0.05 and 3600, not -1"),
        (float("nan"), None, "--timeout must lie between 0.05 and 3600, not nan"),
        (1e300, None, "--timeout .* not a number of many digits"),
        (None, 1, "--memory must lie between 16 and 65536, not 1"),
    ],
)
def test_limits_are_refused_by_the_names_of_their_options(timeout, memory, says):
    with pytest.raises(InvalidInput, match=says):
        _limits(timeout, memory=memory)


def test_each_limit_has_an_option_of_its_own():
    limits = _limits(None, cpu=2.0, memory=64, disk=8, pids=4, output=100)
    assert (limits.cpu_s, limits.memory_mb, limits.disk_mb) == (2.0, 64, 8)
    assert (limits.pids, limits.output_bytes) == (4, 100)
    with pytest.raises(InvalidInput, match="--pids must lie"):
        _limits(None, pids=0)


def test_control_codes_are_shown_on_a_terminal_and_not_obeyed():
    evil = "\x1b]52;c;eA==\x07\x1b[2J\x9b31m\u202ered\tcaf\u00e9\r\n"
    shown = masked(evil.encode()).decode()
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(shown)
    assert shown.endswith("red\tcaf\u00e9\r\n")


def test_a_program_is_read_in_the_encoding_that_it_names(tmp_path):
    file = tmp_path / "a.py"
    file.write_bytes(b"# -*- coding: latin-1 -*-\nx = '\xe9'\n")
    assert "\u00e9" in read_source(str(file))
    file.write_bytes(b"\xef\xbb\xbfx = 1\n")
    assert read_source(str(file)) == "x = 1\n"
    for wrong in (b"# coding: no-such\n", b"x = '\xe9'\n"):
        file.write_bytes(wrong)
        with pytest.raises(InvalidInput, match="is not text in UTF-8"):
            read_source(str(file))


def test_what_was_left_out_is_named_beside_the_output(capfdbinary):
    printer = _Printer()
    printer.write(Output("stdout", b"\xff\x00"))
    printer.write(Output("stdout", b"end\n", omitted=7))
    out, err = capfdbinary.readouterr()
    assert out == b"\xff\x00end\n"
    assert err == b"[7 bytes of stdout are left out here]\n"


def test_what_follows_the_file_is_the_programs():
    words = ["--memory", "64", "a.py", "--memory", "7", "-c", "x"]
    context = run.make_context("run", words)
    assert context.params["words"] == ("a.py", "--memory", "7", "-c", "x")
    assert context.params["memory"] == 64
