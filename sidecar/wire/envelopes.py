"""What browsers receive: the envelope of an event, as JSON text built once from the payload's own text."""

from __future__ import annotations

import json

from sidecar.domain.events import Event


def envelope(event: Event, epoch: str) -> str:
    """`{"type","payload","timestamp","seq","epoch","offset"}` (CONTRACTS, section 0) as JSON text."""
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
