"""The frames of bots (maim_message), with the form of each (docs/maim.md)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from sidecar.domain.maim import ACK, CUSTOM, PARTS, SERVER, STANDARD, VERSION
from sidecar.wire.spoken import Frame, Message, Said


class _Open(Said):
    model_config = ConfigDict(extra="allow")


class MessageInfo(_Open):
    platform: str
    message_id: str
    time: float


class MessageSegment(_Open):
    type: str
    data: Any


class MessageDim(_Open):
    """Who is to get it."""

    api_key: Annotated[Any, Field(description="The receiver's key, or better its address (`sma_…`).")] = None
    platform: Any = None


class BotMessage(_Open):
    message_info: MessageInfo
    message_segment: MessageSegment
    message_dim: MessageDim


class BotMeta(Said):
    sender_user: Annotated[str, Field(json_schema_extra={"const": SERVER})]
    target_user: str | None = None
    platform: str | None = None
    broadcast: Literal[True] | None = None
    timestamp: float


class BotEnvelope(Said):
    ver: Annotated[int, Field(json_schema_extra={"const": VERSION})]
    msg_id: str
    meta: BotMeta


class StandardSent(BotEnvelope):
    payload: BotMessage


class CustomSent(BotEnvelope):
    type: Annotated[str, Field(pattern=f"^{CUSTOM}")]
    payload: Any


class AckMeta(Said):
    uuid: Annotated[str, Field(description="The connection's name.")]
    acked_msg_id: str | int
    timestamp: float


class AckPayload(Said):
    status: Literal["received"]
    server_timestamp: float


class AckSent(Said):
    ver: Annotated[int, Field(json_schema_extra={"const": VERSION})]
    msg_id: str
    meta: AckMeta
    payload: AckPayload


class Queue(_Open):
    ttl_seconds: Annotated[float | None, Field(gt=0)] = None


class MetaGiven(_Open):
    target_platform: Annotated[str | None, Field(description="Stands before `message_dim.platform`.")] = None
    queue: Annotated[bool | Queue | None, Field(description="Keep it for a receiver who is away.")] = None


class AckGivenMeta(_Open):
    acked_msg_id: str


class FrameGiven(_Open):
    msg_id: Annotated[str | int | None, Field(description="With one it is acknowledged, and taken once.")] = None
    meta: MetaGiven | None = None


class StandardGiven(FrameGiven):
    payload: BotMessage


class CustomGiven(FrameGiven):
    type: Annotated[str, Field(pattern=f"^{CUSTOM}")]
    payload: Any = None


class AckGiven(_Open):
    meta: AckGivenMeta


STANDARD_FRAME = Frame(STANDARD, StandardSent, "A message, from another bot or a back end.")
CUSTOM_FRAME = Frame(f"{CUSTOM}<name>", CustomSent, "A message of a type of one's own.")
ACK_FRAME = Frame(ACK, AckSent, "A frame was read, and routed.")
BOT_FRAMES = (STANDARD_FRAME, CUSTOM_FRAME, ACK_FRAME)
STANDARD_MESSAGE = Message(STANDARD, StandardGiven, "To every connection of the receiver.", (ACK_FRAME,))
CUSTOM_MESSAGE = Message(
    f"{CUSTOM}<name>", CustomGiven, "To a hook, and to the receiver that its payload names.", (ACK_FRAME,)
)
ACK_MESSAGE = Message(ACK, AckGiven, "A frame has come; what was kept for this bot is forgotten.")
BARE_MESSAGE = Message("bare", BotMessage, f"Without envelope ({', '.join(PARTS)}): taken as `{STANDARD}`.")
BOT_MESSAGES = (STANDARD_MESSAGE, CUSTOM_MESSAGE, ACK_MESSAGE, BARE_MESSAGE)
