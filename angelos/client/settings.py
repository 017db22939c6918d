"""Where the system is and who the caller is: all that a client reads from the environment.

ANGELOS_URL         the server's address; without it, the system on the data directory is used
ANGELOS_DATA_DIR    the data directory of the system on this machine
ANGELOS_TOKEN       a person's token; without it, the caller is the owner of the data directory
ANGELOS_TOKEN_FILE  a file that holds the token

>>> load({"ANGELOS_URL": "https://angelos.example", "HOME": "/home/ada"}).url
'https://angelos.example'
>>> find_data_dir({"HOME": "/home/ada"})
PosixPath('/home/ada/.local/share/angelos')
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from angelos.adapters.host.datadir import absolute
from angelos.core.errors import InvalidInput


class ClientSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a client needs to reach a system."""

    data_dir: Path
    url: str = ""
    token: str = ""


def load(environ: Mapping[str, str] | None = None) -> ClientSettings:
    """Return the client's settings of the environment.

    Args:
        environ: Read instead of `os.environ`.

    Raises:
        InvalidInput: The token file cannot be read.
    """
    env = os.environ if environ is None else environ
    return ClientSettings(
        data_dir=find_data_dir(env), url=env.get("ANGELOS_URL", ""), token=find_token(env)
    )


def find_data_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Return `ANGELOS_DATA_DIR`, or `angelos` in the XDG data home.

    Args:
        environ: Read instead of `os.environ`.

    Raises:
        InvalidInput: It names the home of a user who does not exist.
    """
    env = os.environ if environ is None else environ
    if named := env.get("ANGELOS_DATA_DIR"):
        return absolute(named)
    home = env.get("XDG_DATA_HOME")
    base = Path(home) if home else absolute(env.get("HOME") or "~") / ".local" / "share"
    return base / "angelos"


def find_token(environ: Mapping[str, str] | None = None) -> str:
    """Return `ANGELOS_TOKEN`, or what the file `ANGELOS_TOKEN_FILE` holds, or an empty text.

    Args:
        environ: Read instead of `os.environ`.

    Raises:
        InvalidInput: The file cannot be read.
    """
    env = os.environ if environ is None else environ
    if token := env.get("ANGELOS_TOKEN"):
        return token
    file = env.get("ANGELOS_TOKEN_FILE")
    return read_token(file) if file else ""


def read_token(file: Path | str) -> str:
    """Return the token that a file holds, without the space around it.

    Raises:
        InvalidInput: The file cannot be read, or holds no token.
    """
    try:
        token = Path(file).read_text(encoding="ascii").strip()
    except OSError as error:
        raise InvalidInput(f"The token file {file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"The token file {file} holds no token.") from error
    if not token:
        raise InvalidInput(f"The token file {file} is empty.")
    return token
