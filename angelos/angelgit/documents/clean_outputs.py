r"""Writes the outputs of a clean re-run into a notebook.

>>> book = '{"cells": [{"cell_type": "code", "id": "a", "source": "1", "outputs": []}]}'
>>> json.loads(with_outputs(book, {"a": '[{"output_type": "stream", "text": "1"}]'}))["cells"][0]
{'cell_type': 'code', 'id': 'a', 'source': '1', 'outputs': [{'output_type': 'stream', 'text': '1'}], 'execution_count': 1}
"""  # noqa: E501 - a cell as it is

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from angelos.core.errors import InvalidInput


def with_outputs(text: str, outputs: Mapping[str, str]) -> str:
    """Return a notebook whose cells hold other outputs, counted from 1 as a clean kernel does.

    Args:
        text: The notebook.
        outputs: JSON of the outputs, by the cell's id, or `#` and its place from 1.

    Raises:
        InvalidInput: It is no notebook, lacks a cell, or the outputs are none.
    """
    try:
        document = json.loads(text)
        cells = document["cells"]
        rest, count = dict(outputs), 0
        for index, cell in enumerate(cells):
            if cell.get("cell_type") != "code" or not _source(cell).strip():
                continue
            count += 1
            made = rest.pop(str(cell.get("id") or f"#{index + 1}"), None)
            if made is not None:
                cell["outputs"] = [_counted(output, count) for output in json.loads(made)]
                cell["execution_count"] = count
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput(f"The outputs fit no notebook: {error}.") from error
    if rest:
        raise InvalidInput(f"The notebook has no cell {', '.join(sorted(rest)[:5])}.")
    return json.dumps(document, ensure_ascii=False)


def _source(cell: Mapping[str, Any]) -> str:
    source = cell.get("source", "")
    return "".join(source) if isinstance(source, list) else str(source)


def _counted(output: dict[str, Any], count: int) -> dict[str, Any]:
    if output["output_type"] == "execute_result":
        return {**output, "execution_count": count}
    return output
