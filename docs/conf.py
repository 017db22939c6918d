"""How Sphinx builds the site: `make docs`, warnings are errors."""

from __future__ import annotations

from angelos import __version__

project = "AngelOS"
author = copyright = "the AngelOS authors"  # noqa: A001 - Sphinx wants this name
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
suppress_warnings = ["misc.highlighting_failure"]  # Cedar's schema has no lexer

myst_heading_anchors = 4  # links into a page are those that work on a git host
myst_enable_extensions = ["colon_fence"]

autodoc_class_signature = "separated"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": False}
python_use_unqualified_type_names = True
# The site is built without a network: what other projects document is named, not linked.
nitpick_ignore_regex = [(r"py:.*", r"(?!angelos\.).*")]

html_theme = "furo"
html_title = f"AngelOS {__version__}"
html_copy_source = False
html_show_sphinx = False
