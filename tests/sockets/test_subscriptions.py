"""Rooms as a page sees them: subscribing in both spellings, what is answered, who may, and one copy of each event."""

from __future__ import annotations

import pytest

from tests.programs import wait_until
from tests.sockets.clients import NAMESPACES, Posting, PythonPage, post_line, post_step


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("mark", ["_", ":"])
@pytest.mark.parametrize(
    ("kind", "given", "room"),
    [
        ("project", "p {}", "project:p {}"),
        ("project", 42, "project:42"),
        ("deployment", "d-{}", "deployment:d-{}"),
        ("deployment", 123456789, "deployment:123456789"),
        ("room", "chat {}", "room:chat {}"),
        ("menu", None, "menu"),
    ],
    ids=["project", "project number", "deployment", "deployment number", "room", "menu"],
)
def test_subscribing_is_acknowledged_and_confirmed(page, name, namespace, mark, kind, given, room):
    given, room = (part.format(name) if isinstance(part, str) else part for part in (given, room))
    args = [] if given is None else [given]
    one = page(namespace).connected()
    answer = one.call(f"subscribe{mark}{kind}", *args)
    assert set(answer) == {"ok", "room", "seq", "offset", "epoch", "replayed", "truncated"}
    assert (answer["ok"], answer["room"], answer["replayed"], answer["truncated"]) == (True, room, 0, False)
    assert isinstance(answer["seq"], int)
    assert answer["offset"].split(".")[0] == str(answer["seq"])
    assert len(answer["epoch"]) == 8

    confirmed = [line["args"][0] for line in one.lines() if line.get("event") == "subscription:confirmed"]
    assert len(confirmed) == 1
    assert set(confirmed[0]) == {"type", "id", "timestamp"}
    assert (confirmed[0]["type"], confirmed[0]["id"]) == (kind, "menu" if given is None else str(given))

    assert one.call(f"unsubscribe{mark}{kind}", *args) == {"ok": True, "room": room}
    undone = [line["args"][0] for line in one.lines() if line.get("event") == "unsubscription:confirmed"]
    assert [(body["type"], body["id"]) for body in undone] == [(confirmed[0]["type"], confirmed[0]["id"])]


def test_an_event_is_an_envelope(sidecar, page, name: str):
    one = page().connected()
    answer = one.call("subscribe_project", name)
    seq = post_step(sidecar, name, name)
    one.wait_for(1)
    event = one.events[0]
    assert set(event) == {"type", "payload", "timestamp", "seq", "epoch", "offset"}
    assert (event["type"], event["seq"], event["epoch"]) == ("step_started", seq, answer["epoch"])
    assert event["offset"].startswith(f"{seq}.")
    assert event["payload"]["deployment_id"] == name


def test_a_socket_in_both_rooms_of_an_event_gets_it_once(sidecar, page, name: str):
    one = page().connected()
    one.call("subscribe_project", name)
    one.call("subscribe:deployment", name)
    seqs = [post_step(sidecar, name, name, step) for step in ("a", "b", "c")]
    assert one.wait_for(3) == seqs


def test_after_unsubscribing_nothing_more_of_that_room_comes(sidecar, page, name: str):
    one = page().connected()
    one.call("subscribe_project", name)
    one.call("subscribe_project", f"{name}-2")
    first = post_step(sidecar, name, name)
    one.wait_for(1)
    one.call("unsubscribe_project", name)
    post_step(sidecar, name, name, "unseen")
    last = post_step(sidecar, f"{name}-2", f"{name}-2")
    assert one.wait_for(2) == [first, last]


def test_unsubscribing_what_was_never_subscribed_is_no_error(page, name: str):
    assert page().connected().call("unsubscribe_project", name)["ok"]


def test_a_heartbeat_is_answered(page):
    one = page().connected()
    answer = one.call("heartbeat")
    assert set(answer) == {"ok", "timestamp"}
    one.emit("heartbeat")
    assert set(one.told("heartbeat:ack")) == {"timestamp"}


class TestSince:
    def test_the_past_comes_after_the_ack_and_before_the_present(self, sidecar, page, name: str):
        seqs = [post_line(sidecar, name, name) for _ in range(40)]
        one = page().connected()
        answer = one.call("subscribe_project", name, {"since": seqs[9]})
        assert (answer["replayed"], answer["truncated"]) == (30, False)
        seqs.append(post_line(sidecar, name, name))
        assert one.wait_for(31) == seqs[10:]
        kinds = [line.get("event", line["what"]) for line in one.lines() if line["what"] in ("ack", "event")]
        assert kinds.index("ack") < kinds.index("event"), "the page knows `replayed` before the replay"

    @pytest.mark.parametrize("as_given", [lambda e: e["offset"], lambda e: e["seq"], lambda e: str(e["seq"])])
    def test_an_offset_a_seq_and_its_text_all_serve(self, sidecar, page, name: str, as_given):
        one = page().connected()
        one.call("subscribe_deployment", name)
        seqs = [post_line(sidecar, name, name) for _ in range(3)]
        one.wait_for(3)
        two = page().connected()
        assert two.call("subscribe_deployment", name, {"since": as_given(one.events[0])})["replayed"] == 2
        assert two.wait_for(2) == seqs[1:]

    def test_the_offset_of_an_ack_serves_too(self, sidecar, page, name: str):
        one = page().connected()
        offset = one.call("subscribe_project", name)["offset"]
        seq = post_line(sidecar, name, name)
        two = page().connected()
        answer = two.call("subscribe_project", name, {"since": offset})
        assert (answer["replayed"], answer["truncated"]) == (1, False)
        assert two.wait_for(1) == [seq]

    def test_the_seq_of_a_read_answer_serves_without_a_duplicate(self, sidecar, page, name: str):
        """Snapshot, then `since`: what the snapshot held must not come again, also while posts go on."""
        post_line(sidecar, name, name)
        with Posting(sidecar, name, [name]):
            for _ in range(10):
                one = page().connected()
                wait_until(
                    lambda: sidecar.get(f"/api/deployments/{name}").status_code == 200, "the deployment is known"
                )
                held = sidecar.get(f"/api/deployments/{name}").json()["seq"]
                answer = one.call("subscribe_deployment", name, {"since": held})
                assert not answer["truncated"]
                wait_until(lambda one=one: len(one.seqs) > 3, "some events")
                assert one.seqs[0] > held

    @pytest.mark.parametrize("since", ["soon", "1.xyz", -1, True, {"seq": 1}, [1], 1.5, "", 2**64])
    def test_what_is_no_offset_is_refused_and_the_room_not_joined(self, sidecar, page, name: str, since: object):
        one = page().connected()
        answer = one.call("subscribe_project", name, {"since": since})
        assert (answer["ok"], answer["code"]) == (False, "invalid")
        assert answer["message"]
        post_line(sidecar, name, name)
        assert one.quiet() == []

    @pytest.mark.parametrize("options", [None, {}, {"since": None}])
    def test_options_without_since_mean_from_now_on(self, sidecar, page, name: str, options: object):
        post_line(sidecar, name, name)
        one = page().connected()
        assert one.call("subscribe_project", name, options)["replayed"] == 0
        assert one.quiet() == []

    def test_an_offset_of_another_journal_is_truncated(self, sidecar, page, name: str):
        seq = post_line(sidecar, name, name)
        one = page().connected()
        for since in (f"{seq}.00000000", 2**40):
            answer = one.call("subscribe_project", name, {"since": since})
            assert (answer["ok"], answer["truncated"], answer["replayed"]) == (True, True, 0)

    def test_a_seq_of_another_epoch_is_truncated(self, sidecar, page, name: str):
        """A bare number has no mark by which a restored backup is found out."""
        seq = post_line(sidecar, name, name)
        one = page().connected()
        answer = one.call("subscribe_project", name, {"since": seq, "epoch": "another"})
        assert (answer["truncated"], answer["replayed"]) == (True, 0)
        answer = one.call("subscribe_project", name, {"since": seq - 1, "epoch": answer["epoch"]})
        assert (answer["truncated"], answer["replayed"]) == (False, 1)
        assert one.call("subscribe_project", name, {"since": seq, "epoch": 7})["code"] == "invalid"

    def test_who_is_truncated_is_shown_what_there_is(self, sidecar, page, name: str):
        """Before the answer, so that a page that reads `truncated` has it already."""
        post_line(sidecar, name, name)
        one = page().connected()
        too_old = {"since": 0, "epoch": "another"}
        answer = one.call("subscribe_project", name, too_old)
        shown = one.told("snapshot")
        assert (shown["type"], shown["id"], shown["room"]) == ("project", name, f"project:{name}")
        assert shown["seq"] >= answer["seq"]
        (deployment,) = shown["snapshot"]["deployments"]
        listed = sidecar.get("/api/deployments", params={"project": name}).json()["items"]
        assert [deployment] == listed
        one.call("subscribe_deployment", name, too_old)
        shown = one.told("snapshot")
        read = sidecar.get(f"/api/deployments/{name}").json()
        assert shown["snapshot"] == {key: value for key, value in read.items() if key not in ("seq", "epoch", "offset")}
        one.call("subscribe_deployment", f"{name}-unseen", too_old)
        assert one.told("snapshot")["snapshot"] is None
        one.call("subscribe_projects", too_old)
        projects = one.told("snapshot")["snapshot"]["projects"]
        assert name in [project["name"] for project in projects]
        one.call("subscribe_menu", too_old)
        menu = one.told("snapshot")["snapshot"]
        read = sidecar.get("/api/menu").json()
        assert menu == {key: read[key] for key in ("version", "checksum", "items")}
        since = one.call("subscribe_project", f"{name}-b", {"since": shown["offset"]})
        assert since["truncated"] is False

    def test_a_socket_that_subscribes_while_posts_go_on_receives_each_seq_once_in_order(self, sidecar, page, name: str):
        """The issue's own check: replay, then live, without gap or duplicate, with posts on their way."""
        with Posting(sidecar, name, [f"{name}-{number}" for number in range(3)]) as posting:
            wait_until(lambda: len(posting.all) > 60, "a past")
            pages = [page(namespace).connected() for namespace in NAMESPACES for _ in range(3)]
            started = []
            for number, one in enumerate(pages):
                since = posting.all[number * 5]
                answer = one.call("subscribe_project", name, {"since": since})
                assert not answer["truncated"]
                assert answer["replayed"] > 0
                one.call("subscribe_deployment", f"{name}-1", {"since": since})
                started.append(since)
            reached = len(posting.all) + 100
            wait_until(lambda: len(posting.all) > reached, "a present")
        for one, since in zip(pages, started, strict=True):
            due = [seq for seq in posting.all if seq > since]
            assert one.wait_for(len(due)) == due

    def test_the_python_client_receives_each_seq_once_in_order(self, sidecar, name: str):
        with (
            PythonPage(sidecar, auth={"token": sidecar.token}) as one,
            Posting(sidecar, name, [f"{name}-{number}" for number in range(2)]) as posting,
        ):
            wait_until(lambda: len(posting.all) > 30, "a past")
            since = posting.all[3]
            assert one.call("subscribe_project", name, {"since": since})["ok"]
            reached = len(posting.all) + 30
            wait_until(lambda: len(posting.all) > reached, "a present")
            posting.__exit__()
            due = [seq for seq in posting.all if seq > since]
            wait_until(lambda: len(one.seqs) >= len(due), "all")
            # Its threads may hand events over in another order than they came in; each comes once.
            assert sorted(one.seqs) == due


class TestRefusals:
    @pytest.mark.parametrize(
        "bad", ["", "   ", None, True, 1.5, [], {}, ["x"], "x" * 201, "a\nb", "a\u0000b", "\u202e"]
    )
    @pytest.mark.parametrize("kind", ["project", "deployment", "room"])
    def test_a_bad_name(self, page, kind: str, bad: object):
        one = page().connected()
        answer = one.call(f"subscribe_{kind}", bad)
        assert (answer["ok"], answer["code"]) == (False, "bad_name")
        assert set(answer) == {"ok", "code", "message"}

    def test_no_name_at_all(self, page):
        assert page().connected().call("subscribe_project")["code"] == "bad_name"

    def test_too_many_rooms(self, start_sidecar, page, name: str):
        server = start_sidecar(SIDECAR_MAX_ROOMS="4")
        one = page(server=server).connected()
        answers = [one.call("subscribe_project", f"{name}-{number}") for number in range(6)]
        refused = [answer for answer in answers if not answer["ok"]]
        assert refused
        assert {answer["code"] for answer in refused} == {"too_many_rooms"}
        assert one.call("subscribe_project", f"{name}-0")["ok"], "one that is held already is no further room"
        one.call("unsubscribe_project", f"{name}-0")
        assert one.call("subscribe_project", f"{name}-9")["ok"]

    def test_rooms_beyond_a_tokens_projects_and_scopes(self, sidecar, page, name: str):
        mine = page(token=sidecar.new_token("deployments:read", projects=[name])).connected()
        assert mine.call("subscribe_project", name)["ok"]
        assert mine.call("subscribe_project", f"{name}-other")["code"] == "not_allowed"
        assert mine.call("subscribe_room", name)["code"] == "not_allowed"
        writer = page(token=sidecar.new_token("webhooks:write")).connected()
        assert writer.call("subscribe_project", name)["code"] == "not_allowed"
        assert writer.call("subscribe_deployment", name)["code"] == "not_allowed"

    def test_a_client_chosen_name_never_reaches_another_kind_of_room(self, sidecar, page, name: str):
        """A free room called `project:x` is not the project x, and nobody joins another's user room."""
        one = page(token=sidecar.connection_token(sub="mallory")).connected()
        assert one.call("subscribe_room", f"project:{name}")["room"] == f"room:project:{name}"
        assert one.call("subscribe_project", "x:y")["room"] == "project:x:y"
        post_step(sidecar, name, name)
        assert one.quiet() == []


class TestConnectionTokens:
    def test_patterns_name_the_rooms_that_may_be_watched(self, sidecar, page, name: str):
        token = sidecar.connection_token(rooms=[f"project:{name}-*", "room:chat", "menu"])
        one = page(token=token).connected()
        allowed = [("project", f"{name}-1"), ("room", "chat"), ("menu", None)]
        refused = [("project", name), ("project", f"x{name}-1"), ("room", "chat2"), ("room", "other")]
        for kind, room in allowed:
            assert one.call(f"subscribe_{kind}", *([room] if room else []))["ok"], (kind, room)
        for kind, room in refused:
            assert one.call(f"subscribe_{kind}", room)["code"] == "not_allowed", (kind, room)

    def test_a_connection_token_is_no_wider_than_its_issuer(self, sidecar, page, name: str):
        issuer = sidecar.new_token("tokens:issue", "deployments:read", projects=[name])
        made = sidecar.post("/api/tokens/connection", {"rooms": ["project:*"]}, token=issuer)
        one = page(token=made.json()["token"]).connected()
        assert one.call("subscribe_project", name)["ok"]
        assert one.call("subscribe_project", f"{name}-other")["code"] == "not_allowed"

    def test_a_deployment_of_a_project_in_the_patterns(self, sidecar, page, name: str):
        post_step(sidecar, name, f"{name}-1")
        post_step(sidecar, f"{name}-other", f"{name}-2")
        one = page(token=sidecar.connection_token(rooms=[f"project:{name}"])).connected()
        assert one.call("subscribe_deployment", f"{name}-1")["ok"]
        assert one.call("subscribe_deployment", f"{name}-2")["code"] == "not_allowed"

    def test_a_deployment_named_by_itself(self, sidecar, page, name: str):
        post_step(sidecar, name, f"{name}-1")
        one = page(token=sidecar.connection_token(rooms=[f"deployment:{name}-1"])).connected()
        assert one.call("subscribe_deployment", f"{name}-1")["ok"]
        assert one.call("subscribe_project", name)["code"] == "not_allowed"


class TestUnseenDeployments:
    """An id that nobody has posted yet is held; the right is that of its project, checked at the first event."""

    def test_it_comes_alive_where_the_project_is_ours(self, sidecar, page, name: str):
        one = page(token=sidecar.new_token("deployments:read", projects=[name])).connected()
        assert one.call("subscribe_deployment", f"{name}-new")["ok"]
        seqs = [post_step(sidecar, name, f"{name}-new", step) for step in ("a", "b")]
        assert one.wait_for(2) == seqs

    def test_it_is_taken_back_where_the_project_is_not(self, sidecar, page, name: str):
        one = page(token=sidecar.new_token("deployments:read", projects=[f"{name}-mine"])).connected()
        assert one.call("subscribe_deployment", f"{name}-new")["ok"]
        post_step(sidecar, name, f"{name}-new")
        told = one.told("subscription:revoked")
        assert (told["type"], told["id"], told["code"]) == ("deployment", f"{name}-new", "not_allowed")
        post_step(sidecar, name, f"{name}-new", "second")
        assert one.quiet() == [], "not even the first event was seen"
        assert one.call("subscribe_deployment", f"{name}-new")["code"] == "not_allowed"

    def test_with_since_as_well(self, sidecar, page, name: str):
        one = page(token=sidecar.new_token("deployments:read", projects=[f"{name}-mine"])).connected()
        assert one.call("subscribe_deployment", f"{name}-new", {"since": 0})["replayed"] == 0
        post_step(sidecar, name, f"{name}-new")
        one.told("subscription:revoked")
        assert one.quiet() == []

    def test_a_known_one_of_another_project_is_refused_at_once(self, sidecar, page, name: str):
        post_step(sidecar, name, name)
        one = page(token=sidecar.new_token("deployments:read", projects=[f"{name}-mine"])).connected()
        assert one.call("subscribe_deployment", name)["code"] == "not_allowed"
