"""What browsers receive: the envelope of an event, as JSON text built once from the payload's own text."""

from __future__ import annotations

import json

from sidecar.domain.events import Event, Volatile
from sidecar.domain.messages import API_MESSAGE


def envelope(event: Event, epoch: str) -> str:
    """`{"type","payload","timestamp","seq","epoch","offset"}` (docs/protocol.md, 4.2) as JSON text."""
    return (
        f'{{"type":{json.dumps(event.type)},"payload":{event.payload},"timestamp":"{event.at}",'
        f'"seq":{event.seq},"epoch":"{epoch}","offset":"{event.offset}"}}'
    )


def envelope_object(event: Event, epoch: str) -> dict[str, object]:
    """The same as an object, for answers that hold several."""
    return {
        "type": event.type,
        "payload": json.loads(event.payload),
        "timestamp": event.at,
        "seq": event.seq,
        "epoch": epoch,
        "offset": event.offset,
    }


def volatile_envelope(news: Volatile) -> str:
    """The same without a place in the journal, and saying so: `{"type","payload","timestamp","volatile":true}`."""
    return f'{{"type":{json.dumps(news.type)},"payload":{news.payload},"timestamp":"{news.at}","volatile":true}}'


def notice(event: Event, offset: str) -> str:
    """What a plain WebSocket about permissions gets (docs/menu.md) as JSON text; it goes on after this offset."""
    return (
        f'{{"type":{json.dumps(event.type)},"data":{event.payload},"timestamp":"{event.at}",'
        f'"seq":{event.seq},"offset":"{offset}"}}'
    )


def bare_message(type: str, payload: str, at: str, offset: str | None = None) -> str:
    """What a plain WebSocket gets (docs/messages.md) as JSON text: of an `api_message` the message within a frame
    of its own, of anything else (a chat message) the fields themselves. `payload` is a JSON object's text."""
    last = f',"offset":"{offset}"}}' if offset is not None else "}"
    if type == API_MESSAGE:
        return f'{{"type":"{API_MESSAGE}","message":{payload},"timestamp":"{at}","source":"rest_api"{last}'
    fields = payload[1:-1]
    return f'{{"type":{json.dumps(type)}{"," if fields else ""}{fields},"timestamp":"{at}"{last}'
