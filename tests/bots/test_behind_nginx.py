"""Real bots of both generations behind a real nginx with nginx/sidecar.conf as shipped: by every path, and with several
processes, each of whose long polls must come to the process that knows it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import websocket

from tests.bots.conftest import Connect
from tests.bots.peers import DEADLINE_SECONDS, VERSIONS, RealClient
from tests.bots.raw import Key, new_key
from tests.programs import ROOT, Nginx, running_nginx, wait_until
from tests.servers import RunningSidecar, two_processes

OLD, NEW = VERSIONS
SHIPPED = (ROOT / "nginx" / "sidecar.conf").read_text()
PATHS = ["/ws", "/ws/", "/project-dashboard/ws", "/project-dashboard/ws/"]


@pytest.fixture(scope="module")
def site(server: RunningSidecar, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with running_nginx(tmp_path_factory.mktemp("nginx") / "site", SHIPPED, server.port) as running:
        yield running


def ws(site: Nginx, path: str) -> str:
    return site.url.replace("http", "ws", 1) + path


def talk(one: RealClient, two: RealClient, one_key: str, two_key: str) -> None:
    sent = [one.send_text(f"there {number}", to=(two_key, "qq")) for number in range(5)]
    assert [two.next_message() for _ in sent] == sent
    back = [two.send_text(f"back {number}", to=(one_key, "wechat")) for number in range(5)]
    assert [one.next_message() for _ in back] == back


@pytest.mark.parametrize("path", PATHS)
def test_both_generations_talk_by_every_path(
    server: RunningSidecar, site: Nginx, connect: Connect, name: str, path: str
):
    keys = [new_key(server, f"{name}-{number}").key for number in range(2)]
    old, new = connect(OLD, ws(site, path), keys[0], "wechat"), connect(NEW, ws(site, path), keys[1], "qq")
    talk(old, new, *keys)


@pytest.mark.parametrize("path", PATHS)
def test_a_key_in_the_address_is_in_no_log(server: RunningSidecar, site: Nginx, name: str, path: str):
    """Browsers can't send headers: the key is in the query, of those who get in and of those who don't."""
    key = new_key(server, name).key
    good = websocket.create_connection(ws(site, f"{path}?api_key={key}&platform=web"), timeout=DEADLINE_SECONDS)
    good.send('{"type":"sys_none","msg_id":"m-1"}')
    assert '"acked_msg_id"' in good.recv()
    good.close()
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        websocket.create_connection(ws(site, f"{path}?api_key={key}-wrong&platform=web"), timeout=DEADLINE_SECONDS)
    assert refused.value.status_code == 401
    assert key not in site.logged()
    assert key not in server.output()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningSidecar]]:
    with two_processes(tmp_path_factory.mktemp("pair"), None, apart=False) as servers:
        yield servers


@pytest.fixture(scope="module")
def several(pair: list[RunningSidecar], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """nginx/sidecar.conf as docs/nginx.md says to change it for two."""
    one, two = pair
    conf = SHIPPED.replace("# server 127.0.0.1:8092 ", f"server 127.0.0.1:{two.port} ")
    assert conf != SHIPPED
    with running_nginx(tmp_path_factory.mktemp("nginx") / "several", conf, one.port) as running:
        yield running


def nodes(server: RunningSidecar, user: str) -> list[str]:
    """Where each of this user's bots is."""
    return [item["node"] for item in server.get(f"/api/maim/connections?user={user}").json()["items"]]


def spread(pair: list[RunningSidecar], connect: Connect, site: Nginx, version: str, key: Key) -> list[RealClient]:
    """Bots of this version, as many as it takes until each process has some."""
    bots: list[RealClient] = []
    while len(bots) < 4 or len(set(nodes(pair[0], key.user))) < 2:
        assert len(bots) < 40
        bots.append(connect(version, ws(site, "/ws"), key.key, "qq"))
    return bots


def test_bots_are_spread_over_processes_and_each_stays(
    pair: list[RunningSidecar], several: Nginx, connect: Connect, name: str
):
    """0.7.5 begins with polling and keeps no cookie of a site that is named by an address: x-uuid tells it apart."""
    senders, receivers = (new_key(pair[0], f"{name}-{number}") for number in range(2))
    olds = [connect(OLD, ws(several, "/ws"), senders.key, "wechat") for _ in range(2)]
    news = spread(pair, connect, several, NEW, receivers)
    for old in olds:
        sent = old.send_text(f"from {old.name}", to=(receivers.key, "qq"))
        assert [new.next_message() for new in news] == [sent] * len(news)
    for new in news:
        sent = new.send_text(f"from {new.name}", to=(senders.key, "wechat"))
        assert [old.next_message() for old in olds] == [sent] * len(olds)
    assert all(len(bot.lines("connect")) == 1 and not bot.lines("disconnect") for bot in (*olds, *news))


@pytest.mark.parametrize("version", VERSIONS)
def test_bots_of_a_process_that_died_come_to_the_other(
    pair: list[RunningSidecar], several: Nginx, connect: Connect, name: str, version: str
):
    """By themselves, and messages go on."""
    key, sender_key = (new_key(pair[0], f"{name}-{number}") for number in range(2))
    bots = spread(pair, connect, several, version, key)
    pair[1].kill()

    def all_here() -> bool:
        found = nodes(pair[0], key.user)
        return len(found) == len(bots) and len(set(found)) == 1

    wait_until(all_here, "all are at the living one")
    sender = connect(OLD, ws(several, "/ws"), sender_key.key, "qq")
    sent = sender.send_text("after", to=(key.key, "qq"))
    assert [bot.next_message() for bot in bots] == [sent] * len(bots)
    pair[1].start()


def test_the_shipped_file_keeps_the_log_without_arguments():
    """Each location that bots use has the log format that has none, and tells nothing at error level."""
    for location in ("location = /ws {", "location ^~ /ws/ {", "location = /project-dashboard/ws {"):
        block = SHIPPED.partition(location)[2].partition("}")[0]
        assert "access_log /var/log/nginx/sidecar.access.log sidecar;" in block
        assert "error.log crit;" in block
