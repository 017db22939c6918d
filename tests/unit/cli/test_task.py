"""What `angelos task run` prints while a task runs."""

from __future__ import annotations

import pytest

from angelos.cli.commands.task import _limits, _Printer
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
        _limits(timeout, memory)
