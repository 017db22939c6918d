"""How Sphinx builds the site: `make docs`, warnings are errors."""

from __future__ import annotations

import re
from typing import cast

from sphinx.application import Sphinx

from angelos import __version__

project = "AngelOS"
author = copyright = "the AngelOS authors"  # noqa: A001 - Sphinx wants this name
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
suppress_warnings = ["misc.highlighting_failure"]  # Cedar's schema has no lexer

myst_heading_anchors = 4  # links into a page are those that work on a git host
myst_enable_extensions = ["colon_fence"]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
default_role = "code"
# The site is built without a network: what other projects document is named, not linked; nor is
# what only other parts of ours use.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!angelos\.).*"),
    (r"py:.*", r"angelos\.core\.(?!(api|errors|messages|repository|runs)\.).*"),
    (r"py:.*", r"angelos\.client\.transport\..*"),
    (r"py:.*", r"angelos\..*\.[A-Z]"),
]

html_theme = "furo"
html_title = f"AngelOS {__version__}"
html_copy_source = False
html_show_sphinx = False

_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")


def setup(app: Sphinx) -> None:
    """Read docstrings the way they are written: Markdown's code, in Google's form."""
    app.connect("autodoc-process-docstring", _markdown_code, priority=400)  # napoleon has 500


def _markdown_code(*arguments: object) -> None:
    """Make `code` and indented examples of a docstring literal; its lines are changed in place."""
    lines = cast("list[str]", arguments[-1])
    result: list[str] = []
    for line in lines:
        example = line.startswith("    ") and result[-1:] == [""]
        if example and not (len(result) > 1 and result[-2].startswith(" ")):
            result += ["::", ""]
        result.append(_CODE.sub(r"``\1``\\ ", line))
    lines[:] = result
