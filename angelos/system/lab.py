"""JupyterLab's server, started without what it does not need: `python -m angelos.system.lab`.

`jsonschema` takes `rfc3987_syntax` if it is there, to check IRIs in schemas of events; importing it
builds a grammar for 1.5 s, half of the server's start. It is optional, so it is hidden.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the server until it is told to stop."""
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment] - "not installed"
    from jupyterlab.labapp import main as lab

    lab()


if __name__ == "__main__":
    main()
