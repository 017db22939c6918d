"""Rich output of code in a box: each object in every form that it has, as a file for the node.

It is loaded inside the box when code calls `display(...)`; nothing of AngelOS is there, so it uses
only the standard library. The node takes what it writes as the program's word.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from typing import Any

FOLDER = ".angelos-display"
_METHODS = {
    "text/html": "_repr_html_",
    "text/markdown": "_repr_markdown_",
    "text/latex": "_repr_latex_",
    "image/svg+xml": "_repr_svg_",
    "image/png": "_repr_png_",
    "image/jpeg": "_repr_jpeg_",
    "application/json": "_repr_json_",
}


def display(*objects: object) -> None:
    """Write each object as a MIME bundle, and its text to standard output."""
    folder = f"{os.environ.get('TMPDIR', '/tmp')}/{FOLDER}"  # noqa: S108
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    for shown in objects:
        bundle = bundle_of(shown)
        number = len(os.listdir(folder))  # noqa: PTH208
        path = f"{folder}/{number:06}-{os.getpid()}"
        with open(f"{path}.part", "x", encoding="utf-8") as file:  # noqa: PTH123
            json.dump({"data": bundle}, file)
        os.rename(f"{path}.part", f"{path}.json")  # noqa: PTH104
        sys.stdout.write(bundle["text/plain"] + "\n")


def bundle_of(shown: Any) -> dict[str, str]:
    """Return media type -> text of an object; what is no text is in base64."""
    forms: dict[str, object] = {"text/plain": repr(shown)}
    whole = getattr(shown, "_repr_mimebundle_", None)
    if callable(whole) and not isinstance(shown, type):
        answer: Any = whole()
        forms.update(answer[0] if isinstance(answer, tuple) else answer or {})
    for media_type, name in _METHODS.items():
        method = getattr(shown, name, None)
        if media_type not in forms and callable(method) and not isinstance(shown, type):
            answer = method()
            answer = answer[0] if isinstance(answer, tuple) else answer
            if answer is not None:
                forms[media_type] = answer
    if "image/png" not in forms and hasattr(shown, "savefig"):  # a figure of matplotlib
        import io

        image = io.BytesIO()
        shown.savefig(image, format="png", bbox_inches="tight")
        forms["image/png"] = image.getvalue()
    return {media_type: _text(form) for media_type, form in forms.items()}


def _text(form: object) -> str:
    if isinstance(form, bytes):
        return base64.b64encode(form).decode()
    return form if isinstance(form, str) else json.dumps(form)
