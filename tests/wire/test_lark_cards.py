"""Cards as Lark takes them, in each state and language, and what a click is answered."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.domain.authorizations import STATES, Card, Language, Toast
from sidecar.wire import lark_cards

URL = "https://accounts.feishu.cn/open-apis/authen/v1/authorize?client_id=cli_a&state=s%2F1"
PENDING = Card("s-1", "pending", "zh", URL)
DRAWN = lark_cards.Look()
TEMPLATE = lark_cards.Look("AAq1")
LANGUAGES = get_args(Language)
MAX_CARD_BYTES = 30_000


def card(state: Any, language: Any) -> Card:
    return Card("s-1", state, language, URL if state == "pending" else None, "Ann" if state == "completed" else None)


def elements(drawn: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    return [element for element in drawn["elements"] if element["tag"] == tag]


def buttons(drawn: dict[str, Any]) -> list[dict[str, Any]]:
    return [button for element in elements(drawn, "action") for button in element["actions"]]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("with_description", [True, False])
def test_every_card_is_one_that_lark_takes(state, language, with_description):
    """JSON 1.0 without exception (a card can't change its schema), shared (else it can't be changed at all), with a
    header in a colour that Lark knows, and never empty."""
    drawn = lark_cards.content(card(state, language), lark_cards.Look(None, with_description))
    assert set(drawn) == {"config", "header", "elements"}
    assert drawn["config"]["update_multi"] is True
    assert drawn["header"]["title"] == {"tag": "plain_text", "content": lark_cards.TITLES[state][language]}
    assert drawn["header"]["template"] in {"blue", "green", "grey"}
    assert drawn["elements"]
    assert {element["tag"] for element in drawn["elements"]} <= {"div", "action", "note"}
    assert len(json.dumps(drawn)) < MAX_CARD_BYTES


def test_a_pending_card_asks():
    drawn = lark_cards.content(PENDING, DRAWN)
    assert (drawn["header"]["title"]["content"], drawn["header"]["template"]) == ("用户授权请求", "blue")
    authorize, cancel = buttons(drawn)
    assert (authorize["text"]["content"], authorize["type"], authorize["url"]) == ("授权", "primary", URL)
    assert authorize["value"] == {"session_id": "s-1", "action": "authorize"}
    assert (cancel["text"]["content"], "url" in cancel) == ("取消", False)
    assert cancel["value"] == {"session_id": "s-1", "action": "reject"}
    assert elements(drawn, "note")


def test_a_pending_card_in_english():
    drawn = lark_cards.content(replace(PENDING, language="en"), DRAWN)
    assert drawn["header"]["title"]["content"] == "Authorization request"
    assert [button["text"]["content"] for button in buttons(drawn)] == ["Authorize", "Cancel"]


@pytest.mark.parametrize("state", [state for state in STATES if state != "pending"])
def test_a_card_that_is_done_has_no_buttons(state):
    drawn = lark_cards.content(Card("s-1", state, "zh", URL), DRAWN)
    assert buttons(drawn) == []
    assert URL not in json.dumps(drawn)


def test_colours_tell_the_state():
    colours = [lark_cards.content(card(state, "zh"), DRAWN)["header"]["template"] for state in STATES]
    assert dict(zip(STATES, colours, strict=True)) == {
        "pending": "blue",
        "completed": "green",
        "expired": "grey",
        "rejected": "grey",
    }


def test_the_description_can_be_left_out():
    assert elements(lark_cards.content(PENDING, DRAWN), "div")
    assert not elements(lark_cards.content(PENDING, lark_cards.Look(None, False)), "div")


def test_a_pending_card_without_a_link_offers_none():
    drawn = lark_cards.content(replace(PENDING, authorize_url=None), DRAWN)
    assert [button["value"]["action"] for button in buttons(drawn)] == ["reject"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_name_of_who_completed_is_shown(language):
    drawn = lark_cards.content(card("completed", language), DRAWN)
    assert elements(drawn, "div")[0]["text"]["content"].startswith("**Ann**")


@pytest.mark.parametrize("name", [None, "", "\n\u202e"])
def test_nobody_is_not_shown(name):
    drawn = lark_cards.content(Card("s-1", "completed", "zh", name=name), DRAWN)
    assert elements(drawn, "div")[0]["text"]["content"] == lark_cards.TEXTS["completed"]["zh"]


@pytest.mark.parametrize(
    "name",
    [
        "<at id=all></at>",
        "[bill](https://evil.example/)",
        "**bold** _it_ ~~no~~ `code`",
        "a\n# title\n- item",
        "&lt;at&gt; &#60;",
        "\u202eevil",
        "![x](img_key)",
    ],
)
def test_a_name_is_shown_letter_by_letter(name):
    """Names are chosen by people: one must not mention everybody or put a link into a card of ours."""
    text = lark_cards.escaped(name)
    assert not re.search(r"[<>*_~`\[\]()#:!/\\\n\u202e-]", re.sub(r"&#\d+;", "", text))
    assert html.unescape(text) == "".join(c if c.isprintable() else " " for c in name).strip()


@given(st.text(max_size=200))
def test_any_name_is_one_short_line(name):
    text = lark_cards.escaped(name)
    assert html.unescape(text).isprintable()
    assert len(html.unescape(text)) <= lark_cards.MAX_NAME_CHARACTERS


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("state", STATES)
def test_a_template_gets_every_variable_as_text(state, language):
    content = lark_cards.content(card(state, language), TEMPLATE)
    assert content["type"] == "template"
    assert content["data"]["template_id"] == "AAq1"
    variables = content["data"]["template_variable"]
    assert set(variables) == {"title", "text", "state", "color", "authorize_url", "session_id"}
    assert all(isinstance(value, str) for value in variables.values())
    assert (variables["state"], variables["session_id"]) == (state, "s-1")


class TestAnswers:
    @pytest.mark.parametrize("language", LANGUAGES)
    @pytest.mark.parametrize("toast", get_args(Toast))
    def test_every_toast(self, toast, language):
        told = lark_cards.answer(toast, language, None, DRAWN)
        assert set(told) == {"toast"}
        assert told["toast"]["type"] in {"info", "success", "warning", "error"}
        assert told["toast"]["content"]

    def test_words_that_users_know(self):
        words = {toast: lark_cards.answer(toast, "zh", None, DRAWN)["toast"] for toast in get_args(Toast)}
        assert words["cancelled"] == {"type": "info", "content": "已取消授权"}
        assert words["follow_link"] == {"type": "info", "content": "请点击链接完成授权"}
        assert words["completed"] == {"type": "success", "content": "授权成功！"}

    def test_a_card_is_wrapped(self):
        """A bare card is no answer (error 200672)."""
        done = card("rejected", "zh")
        told = lark_cards.answer("cancelled", "zh", done, DRAWN)
        assert told["card"] == {"type": "raw", "data": lark_cards.content(done, DRAWN)}

    def test_a_template_is_not_wrapped_twice(self):
        told = lark_cards.answer("cancelled", "zh", card("rejected", "zh"), TEMPLATE)
        assert told["card"]["type"] == "template"
        assert told["card"]["data"]["template_id"] == "AAq1"
