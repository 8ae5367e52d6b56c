"""What is answered about users."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict


class Disconnected(TypedDict):
    """`disconnected` are the user's connections to this process; those to others end too."""

    success: Literal[True]
    status: Literal["success"]
    message: str
    event_id: str
    epoch: str
    disconnected: int
