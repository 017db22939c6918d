"""The program that trains in a box is sent whole, and nothing of it is loaded to send it."""

from __future__ import annotations

import subprocess
import sys

from angelos.ml.registry.programs import ARGV, program_files, program_sha256

CHECK = """
import sys
import angelos.wiring.role_models
from angelos.ml.registry.programs import program_files
assert program_files()
print(sorted({"torch", "peft", "llm"} & {*sys.modules}))
"""


def test_the_server_that_sends_it_loads_no_torch():
    done = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_it_is_complete_and_has_a_hash(tmp_path):
    for path, body in program_files().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(body)
    imports = "import angelos.ml.registry.boxed, sys; print(angelos.__path__[0])"
    done = subprocess.run(
        [sys.executable, "-c", imports], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(tmp_path / "angelos")
    assert f"{ARGV[-1].replace('.', '/')}.py" in program_files()
    assert len(program_sha256()) == 64
