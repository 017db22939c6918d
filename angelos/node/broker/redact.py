"""Takes a credential out of what comes back, should a host repeat it. Pure.

>>> redactor = Redactor(b"Bearer secret-1")
>>> redactor.take(b"you said sec") + redactor.take(b"ret-1!") + redactor.rest()
b'you said ********!'
"""

from __future__ import annotations

import base64
import binascii
from urllib.parse import quote_from_bytes

_LEAST = 4
"""What is shorter is no secret, and a text without it would be none."""


class Redactor:
    """Replaces every occurrence of a value and of the secret in it, also in two pieces."""

    def __init__(self, value: bytes) -> None:
        """Replace `value`, and what of it is secret, with as many stars."""
        self._secrets = _secrets(value)
        self._keep = len(self._secrets[0]) - 1
        self._tail = b""

    def clean(self, data: bytes) -> bytes:
        """Return a whole text without the value."""
        for secret in self._secrets:
            data = data.replace(secret, b"*" * len(secret))
        return data

    def take(self, data: bytes) -> bytes:
        """Return what is certain of the text up to here."""
        text = self.clean(self._tail + data)
        self._tail = text[len(text) - self._keep :] if self._keep < len(text) else text
        return text[: len(text) - len(self._tail)]

    def rest(self) -> bytes:
        """Return the end."""
        rest, self._tail = self._tail, b""
        return rest


def _secrets(value: bytes) -> list[bytes]:
    """Return what a host may repeat of a credential, the longest first.

    >>> _secrets(b"token s3cret")
    [b'token%20s3cret', b'token s3cret', b's3cret']
    """
    texts = [value]
    scheme, _, rest = value.partition(b" ")
    if rest:
        texts.append(rest.strip())
    if scheme.lower() == b"basic":
        try:
            decoded = base64.b64decode(rest.strip())
        except binascii.Error:
            decoded = b""
        texts += [decoded, decoded.partition(b":")[2]]
    texts += [quote_from_bytes(text, safe="").encode() for text in texts]
    fitting = {value, *(text for text in texts if len(text) >= _LEAST)}
    return sorted(fitting, key=lambda text: (-len(text), text))
