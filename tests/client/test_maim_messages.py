"""The classes of a message: apart and together again, and every bad field named."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest

from sidecar.client.maim import (
    APIMessageBase,
    BaseMessageInfo,
    FormatInfo,
    GroupInfo,
    InvalidMessage,
    MessageDim,
    ReceiverInfo,
    Seg,
    SenderInfo,
    TemplateInfo,
    UserInfo,
    forward,
    text_message,
)

WHOLE: dict[str, Any] = {
    "message_info": {
        "platform": "qq",
        "message_id": "m-1",
        "time": 1795227114.5,
        "format_info": {"content_format": ["text", "image"], "accept_format": ["text"]},
        "template_info": {"template_items": {"a": "b"}, "template_name": "t", "template_default": False},
        "additional_config": {"reply_to": {"deep": [1, None]}},
        "sender_info": {
            "group_info": {"platform": "qq", "group_id": 12, "group_name": "friends"},
            "user_info": {"platform": "qq", "user_id": "7", "user_nickname": "ada", "user_cardname": "A."},
        },
        "receiver_info": {"user_info": {"platform": "qq", "user_id": 8}},
    },
    "message_segment": {
        "type": "seglist",
        "data": [
            {"type": "text", "data": "hello"},
            {"type": "seglist", "data": [{"type": "image", "data": "aGk="}, {"type": "at", "data": {"id": 1}}]},
        ],
    },
    "message_dim": {"api_key": "secret", "platform": "wechat"},
}


def test_a_whole_message_comes_out_as_it_went_in():
    message = APIMessageBase.from_dict(WHOLE)
    assert message.to_dict() == WHOLE
    assert message.message_segment.data[1].data[0] == Seg("image", "aGk=")
    assert message.message_info.sender_info == SenderInfo(
        GroupInfo("qq", 12, "friends"), UserInfo("qq", "7", "ada", "A.")
    )
    assert message.message_info.receiver_info == ReceiverInfo(user_info=UserInfo("qq", 8))
    assert message.message_info.format_info == FormatInfo(["text", "image"], ["text"])
    assert message.message_info.template_info == TemplateInfo({"a": "b"}, "t", False)


def test_fields_that_are_not_known_survive():
    odd = copy.deepcopy(WHOLE)
    odd["trace"] = [1]
    odd["message_info"]["sender_info"]["user_info"]["vip"] = True
    odd["message_segment"]["data"][0]["style"] = "bold"
    odd["message_dim"]["note"] = None
    assert APIMessageBase.from_dict(odd).to_dict() == odd


def test_what_is_none_is_left_out():
    message = APIMessageBase(BaseMessageInfo("qq", "m", 1), Seg("text", "hi"), MessageDim("k", "p"))
    assert message.to_dict() == {
        "message_info": {"platform": "qq", "message_id": "m", "time": 1},
        "message_segment": {"type": "text", "data": "hi"},
        "message_dim": {"api_key": "k", "platform": "p"},
    }
    assert UserInfo.from_dict({"platform": "qq", "user_id": "1", "user_nickname": None}).to_dict() == {
        "platform": "qq",
        "user_id": "1",
    }


def test_every_bad_field_is_named_and_no_value_repeated():
    bad = copy.deepcopy(WHOLE)
    del bad["message_info"]["platform"]
    bad["message_info"]["time"] = "secret-time"
    bad["message_info"]["format_info"]["accept_format"] = ["text", 5]
    bad["message_info"]["sender_info"]["user_info"]["user_id"] = None
    bad["message_info"]["sender_info"]["group_info"] = "secret-group"
    bad["message_segment"]["data"][1]["data"][0] = {"type": 5, "data": None}
    bad["message_dim"] = {"api_key": ["secret"]}
    with pytest.raises(ValueError, match="is missing") as caught:
        APIMessageBase.from_dict(bad)
    assert isinstance(caught.value, InvalidMessage)
    assert sorted(caught.value.problems) == [
        ("message_dim.api_key", "must be a string"),
        ("message_dim.platform", "is missing"),
        ("message_info.format_info.accept_format", "must be a list of strings"),
        ("message_info.platform", "is missing"),
        ("message_info.sender_info.group_info", "must be an object"),
        ("message_info.sender_info.user_info.user_id", "is missing"),
        ("message_info.time", "must be a number"),
        ("message_segment.data[1].data[0].data", "is missing"),
        ("message_segment.data[1].data[0].type", "must be a string"),
    ]
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("data", [None, [], "x", 5, {}, {"message_info": None}, {"message_segment": {"type": "x"}}])
def test_what_is_no_message_is_refused(data):
    with pytest.raises(InvalidMessage):
        APIMessageBase.from_dict(data)


@pytest.mark.parametrize("data", ["text", None, {"type": "text", "data": "x"}, ["x"], [None]])
def test_a_seglist_holds_segments(data):
    with pytest.raises(InvalidMessage, match="data"):
        Seg.from_dict({"type": "seglist", "data": data})
    with pytest.raises(InvalidMessage, match="data"):
        Seg("seglist", data)


@pytest.mark.parametrize("time", [True, float("nan"), float("inf"), "1"])
def test_a_time_is_a_number(time):
    with pytest.raises(InvalidMessage, match="time must be a number"):
        BaseMessageInfo("qq", "m", time)


def test_segments_in_segments_without_end_are_refused():
    segment: dict[str, Any] = {"type": "text", "data": "x"}
    for _ in range(5000):
        segment = {"type": "seglist", "data": [segment]}
    with pytest.raises(InvalidMessage, match="nested too deeply"):
        APIMessageBase.from_dict({**WHOLE, "message_segment": segment})


def test_a_field_made_bad_later_is_found_before_it_is_sent():
    message = text_message("hi", "k", "p")
    message.message_info.time = "soon"  # type: ignore[assignment]
    with pytest.raises(InvalidMessage, match="time must be a number"):
        message.to_dict()
    message = text_message("hi", "k", "p")
    message.message_dim = {"api_key": "k"}  # type: ignore[assignment]
    with pytest.raises(InvalidMessage, match="message_dim must be of the class MessageDim"):
        message.to_dict()


def test_a_new_message_gets_an_id_and_the_time():
    one, two = text_message("hi", "k", "wechat", "qq"), text_message("hi", "k", "wechat", "qq")
    assert one.get_message_id() != two.get_message_id()
    assert abs(time.time() - one.get_message_time()) < 60
    assert (one.get_api_key(), one.get_platform(), one.get_message_platform()) == ("k", "wechat", "qq")
    assert not one.has_sender_info()
    assert not one.has_receiver_info()
    one.set_message_dim("other", "lark")
    assert one.message_dim == MessageDim("other", "lark")


def test_forwarding_keeps_all_but_the_receiver_and_shares_nothing():
    first = APIMessageBase.from_dict(copy.deepcopy(WHOLE))
    passed = forward(first, "third", "lark")
    assert passed.to_dict() == {**WHOLE, "message_dim": {"api_key": "third", "platform": "lark"}}
    passed.message_segment.data[0].data = "changed"
    assert passed.message_info.additional_config is not None
    passed.message_info.additional_config["reply_to"]["deep"].append(2)
    assert first.to_dict() == WHOLE


def test_the_repr_shows_no_key():
    assert "secret" not in repr(APIMessageBase.from_dict(WHOLE))
