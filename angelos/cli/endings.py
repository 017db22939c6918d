"""The signals that ask a program to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask a program to end, less a SIGHUP that `nohup` has it ignore."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    both = (signal.SIGINT, signal.SIGTERM)
    return both if ignored else (*both, signal.SIGHUP)


@contextmanager
def interruptible() -> Iterator[None]:
    """Have every signal that asks to end raise `KeyboardInterrupt`, as Ctrl-C does, in this block.

    Python takes signals in its main thread alone; in another one this changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.signal(n, signal.default_int_handler) for n in ending_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
