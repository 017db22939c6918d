"""The signals that ask a program to end."""

from __future__ import annotations

import signal


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask a program to end, less a SIGHUP that `nohup` has it ignore."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    both = (signal.SIGINT, signal.SIGTERM)
    return both if ignored else (*both, signal.SIGHUP)
