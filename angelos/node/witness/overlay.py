"""The tree of a candidate's code with `main`'s own tests: a copy, removed after use."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from angelos.adapters.host.trees import remove_tree
from angelos.core.paths import safe_path


@contextlib.contextmanager
def overlaid(
    code: Path, judges: Path, taken: tuple[str, ...], removed: tuple[str, ...]
) -> Iterator[Path]:
    """Yield a folder with the files of `code`, some of them taken from `judges`, some removed.

    Args:
        code: The candidate's checkout.
        judges: The checkout whose tests judge.
        taken: Paths from `judges`, in place of those of the same name.
        removed: Paths that are left out.

    Raises:
        InvalidInput: A path could lie outside.
        OSError: A path of `taken` is not there, or the disk is full.
    """
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=code.parent))
    try:
        fresh.chmod(0o755)
        shutil.copytree(code, fresh, symlinks=True, dirs_exist_ok=True)
        for folder in (fresh, *(path for path in fresh.rglob("*") if path.is_dir())):
            if not folder.is_symlink():
                folder.chmod(0o755)
        for path in (*taken, *removed):
            target = fresh / safe_path(path)
            target.unlink(missing_ok=True)
        for path in taken:
            target = fresh / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(judges / path, target, follow_symlinks=False)
        yield fresh
    finally:
        remove_tree(fresh)
