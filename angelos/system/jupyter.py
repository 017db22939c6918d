"""How `angelos up` starts its Jupyter Server: configuration and command line.

All files of Jupyter lie in `<data>/jupyter`, apart from the user's own configuration.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import resources
from pathlib import Path
from typing import Any

from angelos.adapters.host.datadir import DataDir, write_private
from angelos.adapters.host.logs import LogFormat, jupyter_logging

_OVERRIDES = {
    "@jupyterlab/apputils-extension:notification": {
        "checkForUpdates": False,
        "doNotDisturbMode": False,
        "fetchNews": "false",
    }
}
"""JupyterLab's settings: do not ask whether to fetch news."""


def configure(data: DataDir, log_format: LogFormat = "text") -> Path:
    """Write Jupyter's configuration into the data directory and return its folder."""
    folder = data.jupyter / "config"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = data.jupyter / "settings"
    settings.mkdir(mode=0o700, exist_ok=True)
    write_private(settings / "overrides.json", json.dumps(_OVERRIDES).encode())
    config: dict[str, Any] = {
        "ServerApp": {
            "allow_root": os.getuid() == 0,
            "ip": "127.0.0.1",
            "jpserver_extensions": {"jupyter_ext": True},
            "open_browser": False,
            "port_retries": 0,
            "root_dir": str(data.workspace),
        },
        "LabApp": {
            "app_settings_dir": str(settings),
            "check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
            "extension_manager": "readonly",
            "news_url": None,
            "open_browser": False,
        },
        "YDocExtension": {"document_cleanup_delay": 60},
    }
    if log_format == "json":
        config["Application"] = {"logging_config": jupyter_logging("server")}
    for part in _extension_config():
        for section, values in part.items():
            config.setdefault(section, {}).update(values)
    write_private(folder / "jupyter_server_config.json", json.dumps(config, indent=1).encode())
    return folder


def argv(port: int) -> list[str]:
    """Return the command."""
    return [sys.executable, "-m", "angelos.system.lab", f"--ServerApp.port={port}"]


def _extension_config() -> list[dict[str, Any]]:
    """Return the configuration that `jupyter_ext` ships, installed or from source."""
    folder = resources.files("jupyter_ext") / "jupyter_server_config.d"
    if not folder.is_dir():
        return []
    files = sorted(folder.iterdir(), key=lambda item: item.name)
    return [json.loads(item.read_text()) for item in files if item.name.endswith(".json")]
