"""A Redis list from which others' items are taken reliably: moved to a list of ours under an id of their own, and
removed from there once they are stored. Knows nothing of what they say.

An item that was moved stays until it is removed, whoever moved it: a process that died leaves its items to the next.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from redis import Redis

MOST_ITEMS = 16
"""In one commit: what is posted meanwhile waits behind them."""
MOST_BYTES = 1024 * 1024
ID_CHARACTERS = 32

_TAKE = """\
local list, processing, large = KEYS[1], KEYS[2], KEYS[3]
local most, most_bytes, item_bytes, nonce = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local labels, labelled = 0, '^' .. string.rep('%x', 32) .. ' %l+\\n'

local function label(kind, text)
  labels = labels + 1
  return nonce .. string.format('%08x', labels) .. ' ' .. kind .. '\\n' .. text
end

while redis.call('LLEN', processing) < most do
  local item = redis.call('LINDEX', list, -1)
  if not item then break end
  if #item > item_bytes then
    redis.call('LMOVE', list, large, 'RIGHT', 'LEFT')
    redis.call('LPUSH', processing, label('large', #item))
  else
    redis.call('LMOVE', list, processing, 'RIGHT', 'LEFT')
    redis.call('LSET', processing, 0, label('item', item))
  end
end

local answer, bytes = {redis.call('LLEN', list) + redis.call('LLEN', processing)}, 0
for place = -1, -most, -1 do
  local entry = redis.call('LINDEX', processing, place)
  if not entry then break end
  if not string.match(entry, labelled) then
    entry = label('item', entry)
    redis.call('LSET', processing, place, entry)
  end
  bytes = bytes + #entry
  if place < -1 and bytes > most_bytes then break end
  answer[#answer + 1] = entry
end
return answer
"""
"""One step for Redis. Nothing is lost if one of its commands is refused (by an ACL, say): what was moved without a
label gets it the next time."""


@dataclass(frozen=True, slots=True)
class ListItem:
    """An item as it was pushed. `id` is ours, and stays with it until it is removed. `too_large` is how many bytes an
    item has that was laid aside; its `body` is empty."""

    id: str
    body: bytes
    too_large: int | None
    entry: bytes
    """As it lies in Redis now."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Items in the order in which they were pushed; `waiting` counts all that are not removed, these too."""

    items: list[ListItem]
    waiting: int


class ReliableList:
    """The list `name`; items above `item_bytes` are laid aside in another, `large`. Every method raises
    redis.RedisError."""

    def __init__(self, client: Redis, name: str, item_bytes: int):
        tag = name if "{" in name else f"{{{name}}}"
        self._client = client
        self._item_bytes = item_bytes
        self.name = name
        self.processing = f"{tag}:processing"
        self.large = f"{tag}:too_large"
        """(In the slot of `name`, for a Redis that has slots.)"""

    def waiting(self) -> int:
        """How many items there are, taken ones too."""
        pipeline = self._client.pipeline(transaction=False)
        for name in (self.name, self.processing):
            pipeline.llen(name)
        return sum(pipeline.execute())

    def take(self) -> Taken:
        """The oldest that are not removed, at most MOST_ITEMS and MOST_BYTES unless the first alone is larger."""
        keys = (self.name, self.processing, self.large)
        bounds = (MOST_ITEMS, MOST_BYTES, self._item_bytes, secrets.token_hex(ID_CHARACTERS // 2 - 4))
        waiting, *entries = self._client.eval(_TAKE, len(keys), *keys, *bounds)
        return Taken([_item(entry) for entry in entries], waiting)

    def remove(self, items: Iterable[ListItem]) -> None:
        """They are stored. One that is not there any more was removed by another process."""
        pipeline = self._client.pipeline(transaction=False)
        for item in items:
            pipeline.lrem(self.processing, -1, item.entry)  # type: ignore[arg-type]
        pipeline.execute()

    def wait(self, seconds: float) -> None:
        """Until there is an item, so long at most. (It is moved from the right end to the right end: nothing changes,
        and nothing is lost when we are gone by then.)"""
        self._client.blmove(self.name, self.name, seconds, "RIGHT", "RIGHT")  # type: ignore[arg-type]


def _item(entry: bytes) -> ListItem:
    label, _, body = entry.partition(b"\n")
    id, _, kind = label.decode().partition(" ")
    if kind == "large":
        return ListItem(id, b"", int(body), entry)
    return ListItem(id, body, None, entry)
