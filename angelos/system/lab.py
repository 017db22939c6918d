"""Starts JupyterLab's server without a slow import: `python -m angelos.system.lab`.

If `rfc3987_syntax` is installed, `jsonschema` imports it to check IRIs in schemas of events, and
its grammar takes 1.5 s to build, half of the server's start. It is optional, so it is hidden.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the server until it is asked to stop."""
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment] - "not installed"
    from jupyterlab.labapp import main as lab

    lab()


if __name__ == "__main__":
    main()
