"""Messages over HTTP: the answers that clients of the old server rely on, rights, keys, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

SEND, LOCATION = "/api/send-websocket/", "/api/push-location/"
OLD = (SEND, LOCATION, "/api/start-live-push/", "/api/stop-live-push/")
GENERAL = ("/api/broadcast/", "/api/notify-user/")
MORE = {"success", "event_id", "epoch", "recipients", "duplicate"}
HERE = {"latitude": 52.5, "longitude": 13.4}


def both(path: str) -> list[str]:
    return [path, path.removesuffix("/"), path.replace("/api/", "/ashe/"), "/project-dashboard" + path]


@pytest.mark.parametrize("path", both(SEND))
def test_a_message_is_answered_as_the_old_server_did(sidecar, name, path: str):
    answer = sidecar.post(path, {"room": name, "message": "hello"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    body = answer.json()
    assert set(body) == {"status", "message", "room", "sent_at"} | MORE
    assert (body["status"], body["message"], body["room"]) == ("success", "Message sent to WebSocket", name)
    assert body["sent_at"].endswith("Z")
    assert (body["success"], body["recipients"], body["duplicate"]) == (True, 0, False)
    assert int(body["event_id"]) > 0


@pytest.mark.parametrize("path", both(LOCATION))
def test_a_location_is_answered_as_the_old_server_did(sidecar, path: str):
    answer = sidecar.post(path, {**HERE, "device_id": "van"})
    body = answer.json()
    assert (answer.status_code, body["status"]) == (200, "success")
    assert body["message"] == "Location update pushed to WebSocket"
    assert body["location"] == {"lat": 52.5, "lng": 13.4}
    assert set(body) == {"status", "message", "location", "room"} | MORE


@pytest.mark.parametrize("path", both(GENERAL[0]))
def test_a_broadcast_is_answered(sidecar, path: str):
    body = sidecar.post(path, {"message": "tea"}).json()
    assert (body["status"], body["success"]) == ("success", True)
    assert set(body) == {"status", "message", "sent_at"} | MORE


@pytest.mark.parametrize("path", both(GENERAL[1]))
def test_a_notice_for_a_user_is_answered(sidecar, name, path: str):
    body = sidecar.post(path, {"user_id": name, "message": "tea"}).json()
    assert (body["status"], body["user_id"], body["recipients"]) == ("success", name, 0)
    assert set(body) == {"status", "message", "sent_at", "user_id"} | MORE


def test_a_message_needs_no_field_at_all(sidecar):
    assert sidecar.post(SEND, {}).json()["room"] == "general"


def test_fields_that_nobody_knows_are_ignored(sidecar, name):
    assert sidecar.post(SEND, {"room": name, "priority": ["high"]}).status_code == 200


@pytest.mark.parametrize("path", [*OLD, *GENERAL])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_other_methods_are_405(sidecar, path: str, method: str):
    answer = sidecar.request(method, path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "OPTIONS, POST")


@pytest.mark.parametrize("path", [path for old in OLD for path in both(old)])
@pytest.mark.parametrize("token", ["", "sct_wrong", "no.token.atall"])
def test_without_a_token_the_old_paths_say_so_in_the_old_way(sidecar, path: str, token: str):
    answer = sidecar.post(path, {}, token)
    assert (answer.status_code, answer.headers["Content-Type"]) == (401, "application/json")
    body = answer.json()
    assert (body["status"], body["success"], body["detail"]) == ("error", False, "Invalid token.")
    assert body["message"]
    assert "WWW-Authenticate" in answer.headers


@pytest.mark.parametrize("path", GENERAL)
def test_without_a_token_the_new_paths_answer_with_a_problem(sidecar, path: str):
    answer = sidecar.post(path, {}, "")
    assert (answer.status_code, answer.headers["Content-Type"]) == (401, "application/problem+json")
    assert answer.json()["status"] == 401


@pytest.mark.parametrize("path", [SEND, LOCATION, *GENERAL])
def test_messages_need_their_scope(sidecar, name, path: str):
    body = {"room": name, "user_id": name, "message": "x", **HERE}
    assert sidecar.post(path, body, sidecar.new_token("push:manage", "rooms:read")).status_code == 403
    assert sidecar.post(path, body, sidecar.new_token("messages:send")).status_code == 200


class TestBrowsers:
    """A connection token writes where its patterns say so, and nowhere else."""

    def token(self, sidecar, *patterns: str, **more: Any) -> str:
        token: str = sidecar.connection_token(rooms=list(patterns), scopes=["messages:send"], sub="ada", **more)
        return token

    def test_in_its_rooms(self, sidecar, name):
        token = self.token(sidecar, f"room:{name}*")
        assert sidecar.post(SEND, {"room": f"{name}-a"}, token).status_code == 200
        refused = sidecar.post(SEND, {"room": f"x-{name}"}, token)
        assert (refused.status_code, refused.json()["status"]) == (403, "error")

    @pytest.mark.parametrize("path", [LOCATION, *GENERAL])
    def test_not_elsewhere(self, sidecar, name, path: str):
        body = {"user_id": name, "message": "x", **HERE}
        assert sidecar.post(path, body, self.token(sidecar, f"room:{name}*")).status_code == 403

    def test_to_everyone_only_by_name(self, sidecar):
        assert sidecar.post(GENERAL[0], {"message": "x"}, self.token(sidecar, "everyone")).status_code == 200

    def test_not_without_the_scope(self, sidecar, name):
        token = sidecar.connection_token(rooms=[f"room:{name}"])
        assert sidecar.post(SEND, {"room": name}, token).status_code == 403


class TestKeys:
    def post(self, sidecar, path: str, body: dict[str, Any], key: str, token: str | None = None):
        return sidecar.post(path, body, token, headers={"Idempotency-Key": key})

    @pytest.mark.parametrize("path", [SEND, LOCATION, *GENERAL])
    def test_the_same_again_gets_its_first_answer(self, sidecar, name, path: str):
        body = {"room": name, "user_id": name, "message": "once", **HERE}
        first, again = (self.post(sidecar, path, body, name).json() for _ in range(2))
        assert (first.pop("duplicate"), again.pop("duplicate")) == (False, True)
        assert again == first

    def test_nothing_is_stored_twice(self, sidecar, name):
        first = self.post(sidecar, SEND, {"room": name}, name).json()
        self.post(sidecar, SEND, {"room": name}, name)
        after = sidecar.post(SEND, {"room": name}).json()
        assert int(after["event_id"]) == int(first["event_id"]) + 1

    def test_another_body_is_a_conflict(self, sidecar, name):
        self.post(sidecar, SEND, {"room": name}, name)
        answer = self.post(sidecar, SEND, {"room": name, "message": "other"}, name)
        assert (answer.status_code, answer.json()["status"], answer.json()["code"]) == (409, "error", "conflict")

    def test_a_key_counts_for_its_path_and_token(self, sidecar, name):
        other = sidecar.new_token("messages:send")
        body = {"room": name, "message": "x", **HERE}
        answers = [self.post(sidecar, path, body, name, token) for path in (SEND, LOCATION) for token in (None, other)]
        assert [answer.json()["duplicate"] for answer in answers] == [False] * 4

    def test_users_with_tokens_of_one_issuer_do_not_suppress_each_other(self, sidecar, name):
        """A browser's token goes by the id of the one that issued it."""
        tokens = [sidecar.connection_token(sub=user, scopes=["messages:send"]) for user in ("ada", "bob")]
        answers = [self.post(sidecar, SEND, {"room": name, "message": "hi"}, name, token) for token in tokens * 2]
        assert [answer.json()["duplicate"] for answer in answers] == [False, False, True, True]

    def test_a_refused_request_spends_no_key(self, sidecar, name):
        assert self.post(sidecar, SEND, {"room": ""}, name).status_code == 400
        assert self.post(sidecar, SEND, {"room": name}, name).json()["duplicate"] is False

    @pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
    def test_a_key_that_can_be_none_is_refused(self, sidecar, name, key: str):
        answer = self.post(sidecar, SEND, {"room": name}, key)
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["path"] == "Idempotency-Key"


NAMES = ["", " ", "x" * 201, "a\nb", "a\u0001b", "a\u202eb", True, False, 1.5, [], {}, ["a"], 10**200]
NUMBERS = ["", "north", "nan", "inf", "-inf", "1e400", True, False, None, [], {}, [1]]
BAD = [
    *((SEND, {"room": room}, "room") for room in [*NAMES, None]),
    *((SEND, {"target_user": user}, "target_user") for user in NAMES[1:]),
    *((SEND, {"message": text}, "message") for text in (None, 1, True, [], {}, "x" * 65_537)),
    *((SEND, {"data": data}, "data") for data in ("x", 1, True, [], [{}])),
    *((SEND, {"data": {field: "x"}}, "data") for field in ("sender", "sender_id", "timestamp")),
    *((SEND, {"data": {"type": kind}}, "data") for kind in (None, 1, True, [], {})),
    *((LOCATION, HERE | {"latitude": number}, "latitude") for number in [*NUMBERS, 90.0001, -91, 10**400, "90.1"]),
    *((LOCATION, HERE | {"longitude": number}, "longitude") for number in [*NUMBERS, 180.5, -181, 1e300]),
    *((LOCATION, HERE | {"device_id": id}, "device_id") for id in NAMES[1:]),
    *((GENERAL[1], {"user_id": user}, "user_id") for user in [*NAMES, None]),
    (GENERAL[1], {}, "user_id"),
    *((GENERAL[0], {"type": kind}, "type") for kind in ("", " ", "x" * 101, "a\nb", None, 1, True, [], {})),
    *((GENERAL[0], {"message": text}, "message") for text in (None, 1, "x" * 65_537)),
    *((GENERAL[0], {"data": data}, "data") for data in ("x", {"sender": 1})),
]


@pytest.mark.parametrize(("path", "body", "field"), BAD)
def test_a_bad_field_is_named(sidecar, path: str, body: dict[str, Any], field: str):
    answer = sidecar.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    if answer.status_code == 400 and answer.json()["code"] == "unparsable":
        assert 10**200 in body.values() or 10**400 in body.values(), answer.text
        return
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid"), answer.text
    (error,) = answer.json()["errors"]
    assert error["path"] == field
    assert error["message"].startswith(("must be", "is ", "holds", "may not", "has", "Field required"))
    assert f"{field} {error['message']}" in answer.json()["detail"]


@pytest.mark.parametrize("path", [SEND, LOCATION, *GENERAL])
@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"null", b"[]", b'"x"', b"7", b"\xff", b'{"room":NaN}', b'{"message":Infinity}',
        b'{"data":' + b'{"a":' * 40 + b"1" + b"}" * 41, b'{"data":{"a":1e999}}', b'{"data":[' + b"0," * 60_000 + b"0]}",
    ],
)  # fmt: skip
def test_a_body_that_is_no_object_is_refused(sidecar, path: str, raw: bytes):
    answer = sidecar.post(path, content=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["message"]


def test_every_bad_field_is_named_at_once(sidecar):
    answer = sidecar.post(SEND, {"room": "", "message": 1, "data": 2, "target_user": []})
    assert [error["path"] for error in answer.json()["errors"]] == ["room", "message", "target_user", "data"]


def test_a_location_without_a_place_is_refused_as_it_was(sidecar):
    for body in ({}, {"latitude": 1}, {"longitude": 1}):
        answer = sidecar.post(LOCATION, body)
        assert (answer.status_code, answer.json()["status"]) == (400, "error")
        assert answer.json()["message"] == "Latitude and longitude required"


@pytest.mark.parametrize(
    ("latitude", "longitude"), [(0, 0), (90, 180), (-90, -180), ("52.5", "13.4"), (0.0, -0.0), (1e-9, 5)]
)
def test_every_place_on_earth_is_taken(sidecar, latitude: object, longitude: object):
    """Zero is one: the equator used to be missing."""
    answer = sidecar.post(LOCATION, {"latitude": latitude, "longitude": longitude})
    assert answer.json()["location"] == {"lat": float(latitude), "lng": float(longitude)}


@pytest.mark.parametrize("text", ["\\ud800", "\\u0000", "\\u202e", "\\ud83d\\ude00", "\\n\\t"])
def test_any_text_is_taken_as_a_message(sidecar, name, text: str):
    """What no client could decode is replaced."""
    raw = f'{{"room":{json.dumps(name)},"message":"{text}","data":{{"{text}":"{text}"}}}}'
    assert sidecar.post(SEND, content=raw.encode()).status_code == 200


def test_names_are_trimmed_and_whole_numbers_are_names(sidecar):
    assert sidecar.post(SEND, {"room": "  7 "}).json()["room"] == "7"
    assert sidecar.post(SEND, {"room": 7, "target_user": 12}).json()["room"] == "7"


def test_a_body_over_the_limit_is_413_in_the_old_shape(sidecar):
    answer = sidecar.post(SEND, {"data": {"x": "x" * 1_048_576}})
    assert (answer.status_code, answer.json()["status"]) == (413, "error")


def test_other_media_are_415_in_the_old_shape(sidecar):
    answer = sidecar.post(SEND, content=b"<a/>", headers={"Content-Type": "application/xml"})
    assert (answer.status_code, answer.json()["status"]) == (415, "error")


def test_the_rate_limit_answers_in_the_old_shape(start_sidecar):
    server = start_sidecar(SIDECAR_RATE_LIMIT="1/second, burst 1")
    answers = [server.post(SEND, {}) for _ in range(20)]
    limited = next(answer for answer in answers if answer.status_code == 429)
    assert limited.json()["status"] == "error"
    assert int(limited.headers["Retry-After"]) > 0
