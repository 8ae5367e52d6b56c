"""What the payload of a maim_message envelope holds: who says what to whom. Pure: nothing is sent here.

Every class takes a dict apart (`from_dict`) and puts it together again (`to_dict`, None left out). What is
wrong is told by one ValueError that names each bad field. Fields that are not known here are kept in `extra` and come
out again.
"""

from __future__ import annotations

import copy
import math
import time as clock
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

Problem = tuple[str, str]
"""Where, and what is wrong there."""


class InvalidMessage(ValueError):
    """`problems` holds every bad field as (path, sentence); no value is repeated."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{path} {said}" for path, said in problems))
        self.problems = tuple(problems)


Check = Callable[[object], str | None]
"""Says what is wrong with a value."""


def _text(value: object) -> str | None:
    return None if isinstance(value, str) else "must be a string"


def _name(value: object) -> str | None:
    """Some platforms number their users."""
    good = isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
    return None if good else "must be a string or an integer"


def _number(value: object) -> str | None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return None if good else "must be a number"


def _flag(value: object) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _texts(value: object) -> str | None:
    good = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return None if good else "must be a list of strings"


def _object(value: object) -> str | None:
    return None if isinstance(value, dict) else "must be an object"


def _anything(value: object) -> str | None:
    return None


Fields = Mapping[str, "Check | type[Part]"]
"""By name: a field's check, or the class of the part that it holds."""


@dataclass
class Part:
    """A JSON object of the payload. What is required and what may be left out stands in two tables of each class."""

    REQUIRED: ClassVar[Fields] = {}
    OPTIONAL: ClassVar[Fields] = {}

    extra: dict[str, Any] = field(default_factory=dict, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raises InvalidMessage. (Parts inside have checked themselves.)"""
        problems = []
        for name, kind in {**self.REQUIRED, **self.OPTIONAL}.items():
            value = getattr(self, name)
            if value is None:
                said = "is missing" if name in self.REQUIRED else None
            elif isinstance(kind, type):
                said = None if isinstance(value, kind) else f"must be of the class {kind.__name__}"
            else:
                said = kind(value)
            if said is not None:
                problems.append((name, said))
        if problems:
            raise InvalidMessage(problems)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON. Raises InvalidMessage if a field was given a bad value meanwhile."""
        self.check()
        names = [*self.REQUIRED, *self.OPTIONAL]
        values = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        plain = {name: value.to_dict() if isinstance(value, Part) else value for name, value in values.items()}
        return plain | {name: value for name, value in self.extra.items() if name not in plain}

    @classmethod
    def from_dict(cls, data: object) -> Self:
        if not isinstance(data, Mapping):
            raise InvalidMessage([(cls.__name__, "must be an object")])
        known: dict[str, Check | type[Part]] = {**cls.REQUIRED, **cls.OPTIONAL}
        values: dict[str, Any] = dict.fromkeys(cls.REQUIRED)
        problems: list[Problem] = []
        for name in known.keys() & data.keys():
            kind, value = known[name], data[name]
            if value is None:
                continue
            if isinstance(kind, type):
                value = _read(kind, value, name, problems)
            values[name] = value
        bad = {path.partition(".")[0] for path, _ in problems}
        problems += [
            (name, said)
            for name, kind in known.items()
            if name not in bad and (said := _wrong(kind, values.get(name), name in cls.REQUIRED)) is not None
        ]
        if problems:
            order = list(known)
            raise InvalidMessage(sorted(problems, key=lambda problem: order.index(problem[0].partition(".")[0])))
        return cls(**values, extra={name: value for name, value in data.items() if name not in known})


def _read(kind: type[Part], value: object, name: str, problems: list[Problem]) -> Part | None:
    if not isinstance(value, Mapping):
        problems.append((name, "must be an object"))
        return None
    try:
        return kind.from_dict(value)
    except InvalidMessage as error:
        problems += [(f"{name}.{path}", said) for path, said in error.problems]
        return None


def _wrong(kind: Check | type[Part], value: object, required: bool) -> str | None:
    if value is None:
        return "is missing" if required else None
    return None if isinstance(kind, type) else kind(value)


@dataclass
class Seg(Part):
    """What is said: `type` text, image, file, at, face, …; the `data` of a `seglist` is a list of these."""

    REQUIRED: ClassVar[Fields] = {"type": _text, "data": _anything}

    type: str
    data: Any

    def check(self) -> None:
        super().check()
        if self.type == "seglist":
            if not isinstance(self.data, list):
                raise InvalidMessage([("data", "must be a list")])
            bad = [number for number, item in enumerate(self.data) if not isinstance(item, Seg)]
            if bad:
                raise InvalidMessage([(f"data[{number}]", "must be of the class Seg") for number in bad])

    def to_dict(self) -> dict[str, Any]:
        plain = super().to_dict()
        if self.type == "seglist":
            plain["data"] = [item.to_dict() for item in self.data]
        return plain

    @classmethod
    def from_dict(cls, data: object) -> Self:
        if isinstance(data, Mapping) and data.get("type") == "seglist" and isinstance(data.get("data"), list):
            problems: list[Problem] = []
            items = [_read(cls, item, f"data[{number}]", problems) for number, item in enumerate(data["data"])]
            if problems:
                raise InvalidMessage(problems)
            return super().from_dict({**data, "data": items})
        return super().from_dict(data)


@dataclass
class GroupInfo(Part):
    """The group in which something is said."""

    REQUIRED: ClassVar[Fields] = {"platform": _text, "group_id": _name}
    OPTIONAL: ClassVar[Fields] = {"group_name": _text}

    platform: str
    group_id: str | int
    group_name: str | None = None


@dataclass
class UserInfo(Part):
    """Somebody on a platform."""

    REQUIRED: ClassVar[Fields] = {"platform": _text, "user_id": _name}
    OPTIONAL: ClassVar[Fields] = {"user_nickname": _text, "user_cardname": _text}

    platform: str
    user_id: str | int
    user_nickname: str | None = None
    user_cardname: str | None = None


@dataclass
class InfoBase(Part):
    """Somebody, and the group in which they are."""

    OPTIONAL: ClassVar[Fields] = {"group_info": GroupInfo, "user_info": UserInfo}

    group_info: GroupInfo | None = None
    user_info: UserInfo | None = None


@dataclass
class SenderInfo(InfoBase):
    """Who said it."""


@dataclass
class ReceiverInfo(InfoBase):
    """To whom it was said."""


@dataclass
class FormatInfo(Part):
    """Kinds of segments that the message has, and that may be answered."""

    OPTIONAL: ClassVar[Fields] = {"content_format": _texts, "accept_format": _texts}

    content_format: list[str] | None = None
    accept_format: list[str] | None = None


@dataclass
class TemplateInfo(Part):
    """Templates that the receiver shall use."""

    OPTIONAL: ClassVar[Fields] = {"template_items": _object, "template_name": _anything, "template_default": _flag}

    template_items: dict[str, str] | None = None
    template_name: Any = None
    template_default: bool = True


@dataclass
class MessageDim(Part):
    """The receiver: a key (or the address `sma_…` that stands for one) and a platform. The key is not in its repr."""

    REQUIRED: ClassVar[Fields] = {"api_key": _text, "platform": _text}

    api_key: str = field(repr=False)
    platform: str


@dataclass
class BaseMessageInfo(Part):
    """The sender's platform, and when and about whom. Without an id and a time a new message gets them here."""

    REQUIRED: ClassVar[Fields] = {"platform": _text, "message_id": _name, "time": _number}
    OPTIONAL: ClassVar[Fields] = {
        "format_info": FormatInfo,
        "template_info": TemplateInfo,
        "additional_config": _object,
        "sender_info": SenderInfo,
        "receiver_info": ReceiverInfo,
    }

    platform: str
    message_id: str | int = field(default_factory=lambda: uuid.uuid4().hex)
    time: float = field(default_factory=lambda: clock.time())
    format_info: FormatInfo | None = None
    template_info: TemplateInfo | None = None
    additional_config: dict[str, Any] | None = None
    sender_info: SenderInfo | None = None
    receiver_info: ReceiverInfo | None = None


@dataclass
class APIMessageBase(Part):
    """A whole message."""

    REQUIRED: ClassVar[Fields] = {"message_info": BaseMessageInfo, "message_segment": Seg, "message_dim": MessageDim}

    message_info: BaseMessageInfo
    message_segment: Seg
    message_dim: MessageDim

    @classmethod
    def from_dict(cls, data: object) -> Self:
        try:
            return super().from_dict(data)
        except RecursionError:
            raise InvalidMessage([("message_segment", "is nested too deeply")]) from None

    def get_api_key(self) -> str:
        """The receiver's."""
        return self.message_dim.api_key

    def get_platform(self) -> str:
        """The receiver's."""
        return self.message_dim.platform

    def get_message_platform(self) -> str:
        """The sender's."""
        return self.message_info.platform

    def get_message_id(self) -> str | int:
        return self.message_info.message_id

    def get_message_time(self) -> float:
        return self.message_info.time

    def set_message_dim(self, api_key: str, platform: str) -> None:
        self.message_dim = MessageDim(api_key, platform)

    def has_sender_info(self) -> bool:
        return self.message_info.sender_info is not None

    def has_receiver_info(self) -> bool:
        return self.message_info.receiver_info is not None


def text_message(text: str, api_key: str, platform: str, from_platform: str = "default") -> APIMessageBase:
    """A text for the owner of this key on this platform."""
    return APIMessageBase(BaseMessageInfo(from_platform), Seg("text", text), MessageDim(api_key, platform))


def forward(message: APIMessageBase, api_key: str, platform: str) -> APIMessageBase:
    """The same message, sender and content, for somebody else. Shares nothing with the first."""
    data = copy.deepcopy(message.to_dict())
    return APIMessageBase.from_dict(data | {"message_dim": MessageDim(api_key, platform).to_dict()})
