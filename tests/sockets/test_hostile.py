"""Clients that mean harm or are broken: they lose their own connection, and nobody else notices."""

from __future__ import annotations

import json
import threading

import pytest

from tests.programs import wait_until
from tests.sockets.clients import Polling, Posting, closed_by_server, post_step

FIGURES = {
    "sidecar_socket_connections",
    "sidecar_rooms",
    "sidecar_subscribers",
    "sidecar_subscribers_catching_up",
    "sidecar_subscribers_demoted_total",
}


def open_sockets(server) -> dict[str, float]:
    """What the server itself counts."""
    metrics = server.get("/metrics").text
    return {
        line.split(" ")[0]: float(line.split(" ")[1]) for line in metrics.splitlines() if line.split(" ")[0] in FIGURES
    }


HOSTILE = {
    "connect as an event": '42["connect"]',
    "connect with a token": '42["connect",{"token":"x"}]',
    "disconnect as an event": '42["disconnect"]',
    "disconnect with a reason": '42["disconnect","x"]',
    "connect_error": '42["connect_error",{}]',
    "with an ack": '421["connect"]',
    "no name": "42[]",
    "a number for a name": "42[7]",
    "null for a name": "42[null]",
    "an object": '42{"a":1}',
    "a text": '42"subscribe_project"',
    "NaN": '42["subscribe_project",NaN]',
    "Infinity": '42["subscribe_project",{"since":Infinity}]',
    "-Infinity": '42["heartbeat",-Infinity]',
    "not JSON": '42["subscribe_project"',
    "nothing after the type": "42",
    "unknown type": "49",
    "empty message": "4",
    "deep": "42" + '["x",' + "[" * 100_000 + "]" * 100_000 + "]",
    "no attachment announced": '450-["x"]',
    "more attachments than anybody needs": '4517-["x",{"_placeholder":true,"num":0}]',
    "a thousand million attachments announced": "459999999999-[]",
    "a CONNECT_ERROR": "44{}",
}


@pytest.mark.parametrize("packet", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_packet_that_no_client_may_send_costs_the_connection(sidecar, raw, name: str, packet: str):
    """`connect` and `disconnect` as event names would run the server's own handlers, as often as one likes."""
    one = raw.joined(sidecar)
    one.send('420["subscribe_project","' + name + '"]')
    one.send(packet)
    assert closed_by_server(one)
    one.close()


@pytest.mark.parametrize("packet", ['42["connect"]', '42["subscribe_project",NaN]', "451-[]", "42"])
def test_by_polling_too_and_nothing_behind_it_is_read(sidecar, name: str, packet: str):
    polling = Polling(sidecar)
    polling.connect(sidecar.token)
    polling.post(packet, f'420["subscribe_project","{name}"]')
    assert polling.ended()
    polling.close()
    answer = sidecar.post(
        "/api/webhooks/deployment",
        {"type": "step_started", "project": name, "deployment_id": name, "step_name": "x"},
    )
    assert answer.json()["recipients"] == 0


BINARY_SUBSCRIBE = '451-7["subscribe_project",{"_placeholder":true,"num":0}]'


def test_a_binary_event_is_handled_when_its_attachment_has_come(sidecar, raw):
    one = raw.joined(sidecar)
    one.send(BINARY_SUBSCRIBE)
    one.send_binary(b"bytes are no name")
    answer = str(one.recv())
    assert answer.startswith('437[{"ok":false')
    assert json.loads(answer[3:])[0]["code"] == "bad_name"
    one.send('428["heartbeat"]')
    assert str(one.recv()).startswith('42["heartbeat:ack"')
    one.close()


def test_by_polling_too(sidecar):
    polling = Polling(sidecar)
    polling.connect(sidecar.token)
    assert polling.post(BINARY_SUBSCRIBE, "bAAE=").status_code == 200
    assert polling.packets()[0].startswith('437[{"ok":false')
    polling.post("1")
    polling.close()


def test_an_attachment_that_nobody_announced(sidecar, raw):
    one = raw.joined(sidecar)
    one.send_binary(b"anything")
    assert closed_by_server(one)
    one.close()


def test_a_text_where_an_attachment_is_due(sidecar, raw):
    one = raw.joined(sidecar)
    one.send(BINARY_SUBSCRIBE)
    one.send('42["heartbeat"]')
    assert closed_by_server(one)
    one.close()


def test_attachments_together_are_bounded_as_a_message_is(start_sidecar, raw):
    server = start_sidecar(SIDECAR_MAX_BODY_BYTES="2000")
    one = raw.joined(server)
    one.send('453-["x",{"_placeholder":true,"num":0}]')
    one.send_binary(b"x" * 1_000)
    one.send_binary(b"x" * 1_001)
    assert closed_by_server(one)
    one.close()


def test_events_of_somebody_who_never_connected_do_nothing(sidecar, raw, name: str):
    one = raw(sidecar)
    one.send(f'420["subscribe_project","{name}"]')
    one.send("40" + json.dumps({"token": sidecar.token}))
    packets = [str(one.recv())]
    assert packets[0].startswith("40{"), "the event was not answered"
    one.close()


def test_somebody_refused_can_not_subscribe(sidecar, raw, name: str):
    one = raw(sidecar)
    one.send('40{"token":"wrong"}')
    assert str(one.recv()).startswith("44{")
    one.send(f'420["subscribe_project","{name}"]')
    one.send("40" + json.dumps({"token": sidecar.token}))
    assert str(one.recv()).startswith("40{")
    one.close()


def test_a_second_connect_to_a_namespace_opens_no_second_session(start_sidecar, raw, name: str):
    server = start_sidecar(SIDECAR_RATE_LIMIT="off")
    before = open_sockets(server)
    one = raw.joined(server)
    one.send("40" + json.dumps({"token": server.token}))
    one.recv()
    one.close()
    wait_until(lambda: open_sockets(server) == before, f"{open_sockets(server)} is {before} again")


def test_events_never_come_before_the_connect_packet_nor_before_the_ack(sidecar, raw, name: str):
    """With events on their way an early one would reach a client that has no socket to give it to, or one that does
    not know yet how many are replayed."""
    with Posting(sidecar, name, [f"{name}-{number}" for number in range(2)]):
        for _ in range(30):
            one = raw(sidecar)
            one.send("40" + json.dumps({"token": sidecar.token}))
            one.send(f'421["subscribe_project","{name}",{{"since":0}}]')
            packets = [str(one.recv()) for _ in range(7)]
            assert packets[0].startswith('40{"sid"')
            assert packets[1].startswith('42["session"')
            assert packets[2].startswith('42["subscription:confirmed"')
            assert packets[3].startswith('431[{"ok":true')
            assert all(packet.startswith('42["event",{') for packet in packets[4:])
            one.close()


def test_a_crowd_that_leaves_in_the_middle_of_its_requests_leaves_nothing_behind(start_sidecar, name: str):
    """Sessions, rooms and connections come back to what they were."""
    server = start_sidecar(SIDECAR_RATE_LIMIT="off")
    post_step(server, name, name)
    before = open_sockets(server)
    assert set(before.values()) == {0.0}

    def come_and_go(number: int) -> None:
        polling = Polling(server)
        polling.connect(server.token)
        # Subscribes read the database; the goodbye arrives in another request meanwhile.
        asking = threading.Thread(
            target=polling.post,
            args=[
                f'42["subscribe_deployment","{name}",{{"since":0}}]',
                f'42["subscribe_deployment","{name}-{number}"]',
            ],
        )
        asking.start()
        other = Polling.__new__(Polling)
        other.__dict__ |= polling.__dict__
        other.post("1" if number % 2 else "41")
        asking.join()
        polling.post("1")
        polling.close()

    crowd = [threading.Thread(target=come_and_go, args=[number]) for number in range(30)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    wait_until(lambda: open_sockets(server) == before, f"{open_sockets(server)} is {before} again")


def test_others_get_their_events_while_somebody_misbehaves(sidecar, raw, page, name: str):
    one = page().connected()
    one.call("subscribe_project", name)
    seqs = []
    for packet in ('42["connect"]', "451-[]", '42["x",NaN]'):
        bad = raw.joined(sidecar)
        bad.send(f'420["subscribe_project","{name}"]')
        bad.send(packet)
        seqs.append(post_step(sidecar, name, name, packet[:5] + str(len(seqs))))
        bad.close()
    assert one.wait_for(len(seqs)) == seqs
