"""The `git` program, where a command needs it.

GitProgram(Path("/srv/study")).run("rev-parse", "HEAD")
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from angelos.core.errors import InvalidInput, Unavailable

_CLEAR = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE")
_TIMEOUT_S = 1800


class GitProgram:
    """Runs git in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *arguments: str, timeout_s: float = _TIMEOUT_S) -> bytes:
        """Return what git writes to standard output.

        Raises:
            InvalidInput: It fails; with what it says.
            Unavailable: There is no git, or it does not end.
        """
        env = {name: value for name, value in os.environ.items() if name not in _CLEAR}
        env |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"}
        try:
            done = subprocess.run(
                ["git", "-C", str(self.folder), *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=timeout_s,
                env=env,
            )
        except FileNotFoundError as error:
            raise Unavailable(
                "There is no git program here.", hint="Install git, and try again."
            ) from error
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"git {arguments[0]} took over {timeout_s:.0f} s.") from error
        if done.returncode:
            said = " ".join(done.stderr.decode(errors="replace").split())
            raise InvalidInput(f"git {arguments[0]} failed: {said[-1_000:]}")
        return done.stdout
