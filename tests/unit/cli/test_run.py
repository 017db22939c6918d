"""What `angelos run` prints while a task runs."""

from __future__ import annotations

from angelos.cli.commands.run import _Printer
from angelos.client import Restarted
from angelos.core.ports import Output


def test_a_task_that_begins_anew_is_announced_on_standard_error(capfdbinary):
    printer = _Printer()
    printer.write(Output("stdout", b"half a li"))
    printer.restart(Restarted(2, "exec1"))
    printer.write(Output("stdout", b"a whole line\n"))
    printer.end()
    out, err = capfdbinary.readouterr()
    assert out == b"half a li\na whole line\n"
    assert err == b"[exec1 was restarted: running again, attempt 2]\n"
