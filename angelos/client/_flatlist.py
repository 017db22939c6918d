"""Goes with `_flat`."""

from typing import Any


class FlatList:
    """`angelos.tasks()` beside `angelos.tasks.list()`."""

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return await self.list(*args, **kwargs)  # type: ignore[attr-defined]
