"""`core.ports.Announcements` in Valkey: what each hub says of itself, for as long as it lives.

announcements = ValkeyAnnouncements(client, "hub")
others = await announcements.announce("https://10.0.0.1:7443", b"...")     # {holder: body}
"""

from __future__ import annotations

from angelos.adapters.stores.pipeline import Script
from angelos.adapters.stores.streams import Client

TTL_S = 10
"""Who has not announced anything for so long is not there any more."""

# KEYS: holder -> body, holder -> when. ARGV: holder, body (empty: the one before), ttl.
# Returns whether the holder's body is there, then holder and body of each other one that lives.
_ANNOUNCE = Script(
    """
local now = tonumber(redis.call('TIME')[1])
if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
redis.call('HSET', KEYS[2], ARGV[1], now)
local answer = {redis.call('HEXISTS', KEYS[1], ARGV[1])}
local seen = redis.call('HGETALL', KEYS[2])
for i = 1, #seen, 2 do
  local at = tonumber(seen[i + 1])
  if not at or now - at > tonumber(ARGV[3]) then
    redis.call('HDEL', KEYS[1], seen[i])
    redis.call('HDEL', KEYS[2], seen[i])
  elseif seen[i] ~= ARGV[1] then
    answer[#answer + 1] = seen[i]
    answer[#answer + 1] = redis.call('HGET', KEYS[1], seen[i]) or ''
  end
end
return answer
"""
)
_WITHDRAW = Script(
    "redis.call('HDEL', KEYS[1], ARGV[1]) return redis.call('HDEL', KEYS[2], ARGV[1])"
)


class ValkeyAnnouncements:
    """Announcements of one kind.

    Args:
        client: From `connect`.
        kind: Of those who announce; each kind hears its own.
    """

    def __init__(self, client: Client, kind: str) -> None:
        self._client = client
        self._keys = (f"{{announced:{kind}}}:bodies", f"{{announced:{kind}}}:seen")
        self._last: tuple[str, bytes] | None = None

    async def announce(self, holder: str, body: bytes) -> dict[str, bytes]:
        """Say that `holder` lives, and what it is; return what the others say."""
        changed = self._last != (holder, body)
        answer = await self._say(holder, body if changed else b"")
        if not answer[0]:  # the store has forgotten it
            answer = await self._say(holder, body)
        self._last = (holder, body)
        return {
            name.decode(errors="replace"): said
            for name, said in zip(answer[1::2], answer[2::2], strict=True)
        }

    async def _say(self, holder: str, body: bytes) -> list[bytes]:
        return await self._client.writer.run(_ANNOUNCE, self._keys, holder, body, TTL_S)

    async def withdraw(self, holder: str) -> None:
        """Say that `holder` is not there any more."""
        self._last = None
        await self._client.writer.run(_WITHDRAW, self._keys, holder)
