"""Takes a credential out of what comes back, should a host repeat it. Pure.

>>> redactor = Redactor(b"secret-1")
>>> redactor.take(b"you said sec") + redactor.take(b"ret-1!") + redactor.rest()
b'you said ********!'
"""

from __future__ import annotations


class Redactor:
    """Replaces every occurrence of a value, also one that comes in two pieces."""

    def __init__(self, value: bytes) -> None:
        """Replace `value` with as many stars."""
        self._value = value
        self._stars = b"*" * len(value)
        self._tail = b""

    def clean(self, data: bytes) -> bytes:
        """Return a whole text without the value."""
        return data.replace(self._value, self._stars)

    def take(self, data: bytes) -> bytes:
        """Return what is certain of the text up to here."""
        text = self.clean(self._tail + data)
        keep = len(self._value) - 1
        self._tail = text[len(text) - keep :] if keep < len(text) else text
        return text[: len(text) - len(self._tail)]

    def rest(self) -> bytes:
        """Return the end."""
        rest, self._tail = self._tail, b""
        return rest
