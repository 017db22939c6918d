"""Requirements: names, versions, hashes; nothing that says where a package comes from."""

from __future__ import annotations

import pytest

from angelos.core.errors import InvalidInput
from angelos.core.requirements import MAX_PACKAGES, check_requirements, parse_requirements

HASH = "--hash=sha256:" + "a" * 64


def test_a_file_of_requirements_is_read_line_by_line() -> None:
    text = f"""# what the study needs
numpy==2.1.0 \\
    {HASH} \\
    {HASH}
pandas[excel]>=2,<3 ; python_version >= '3.9'   # tables
\r
numpy==2.1.0 {HASH} {HASH}
"""
    assert parse_requirements(text) == (
        f"numpy==2.1.0 {HASH} {HASH}",
        "pandas[excel]>=2,<3 ; python_version >= '3.9'",
    )
    assert parse_requirements("\n# nothing\n") == ()


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://evil.test/", "-r other.txt", "-e .", "./here", "/etc", "..",
        "a @ https://evil.test/a.whl", "a@file:///etc", "git+https://evil.test/a", "a b", "a;b|c",
        "a --install-option=x", f"a --hash=md5:{'a' * 32}", "a\x00", "$(id)", "a==1\n-r x", "-",
        "a;python_version>'3'\n-e .", "a;\x85--pre", "a;\u2028-r x", "a\r[b]", "a\t==1", "a; --pre",
        f"a\n{HASH}", f"a {HASH}\n",
    ],
)  # fmt: skip
def test_what_is_no_plain_requirement_is_refused(line: str) -> None:
    with pytest.raises(InvalidInput):
        check_requirements([line])


def test_there_are_not_too_many() -> None:
    with pytest.raises(InvalidInput):
        check_requirements(f"a{number}" for number in range(MAX_PACKAGES + 1))
    with pytest.raises(InvalidInput):
        parse_requirements("#" * 400_001)
