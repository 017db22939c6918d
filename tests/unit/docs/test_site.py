"""The documentation is one site, built without a warning; its pictures are valid SVG."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[3]
PICTURES = sorted((ROOT / "docs" / "images").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    argv = [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", "-E"]
    folders = ["-d", str(tmp_path / "trees"), str(ROOT / "docs"), str(tmp_path / "html")]
    built = subprocess.run(
        [*argv, *folders], capture_output=True, text=True, timeout=170, check=False
    )
    assert (built.returncode, built.stderr) == (0, "")
    for name in ("index", "explanation/roads", "reference/client", "tutorials/first-hour"):
        assert (tmp_path / "html" / f"{name}.html").exists()
    client = (tmp_path / "html" / "reference" / "client.html").read_text()
    assert 'id="angelos.client.angelos.Angelos.connect"' in client


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_a_picture_says_what_it_shows_and_has_a_dark_side(picture):
    root = ET.parse(picture).getroot()
    assert root.find(f"{SVG}title").text
    assert root.find(f"{SVG}desc").text
    assert "prefers-color-scheme: dark" in root.find(f"{SVG}style").text


def test_there_is_a_picture_of_the_planes_and_of_each_road():
    names = {picture.name for picture in PICTURES}
    assert {"planes.svg", "road-task.svg", "road-patch.svg"} <= names
