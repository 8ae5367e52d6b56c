"""static/sidecar.js keeps a menu and permissions in sync: live, by asking, from its last copy, in several windows."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tests.chaos.loop import Loop
from tests.chaos.proxy import Proxy
from tests.chromium import Browser
from tests.conftest import Start
from tests.servers import RunningSidecar
from tests.sidecar_js.site import PREFIX, QUICK, Site, allowing, connect

RARELY = "every: 3_600_000"


def put(server: RunningSidecar, key: str, **fields: Any) -> int:
    """An item of the menu; the menu's version."""
    body = {"name": key, "menu_level": "root", "sort_order": 1, **fields}
    answer = server.request("PUT", f"/api/menu/{key}", json=body)
    assert answer.status_code == 200, answer.text
    version: int = answer.json()["version"]
    return version


def give(server: RunningSidecar, role: str, user: str | None = None, **fields: Any) -> None:
    """A role, and to whom."""
    answer = server.request("PUT", f"/api/roles/{role}", json=fields)
    assert answer.status_code == 200, answer.text
    if user is not None:
        answer = server.request("PUT", f"/api/users/{user}/roles", json={"roles": [role]})
        assert answer.status_code == 200, answer.text


def sync(page: Browser, options: str = RARELY, kind: str = "menu") -> None:
    """Start a menu (or permissions); `told` is what its subscriber was told."""
    page.evaluate(f"""
        window.told = [];
        window.{kind} = sidecar.{kind}({{ {options} }});
        {kind}.subscribe((state) => told.push({{ ...state, error: state.error?.code ?? null }}));
        {kind}.start(); null""")


def until(page: Browser, *keys: str, source: str = "server", stale: bool = False) -> dict[str, Any]:
    """The last that was told, once it shows these items."""
    wanted = json.dumps([list(keys), source, stale])
    page.wait_for(
        "told.length && JSON.stringify([told.at(-1).items.map((item) => item.key), told.at(-1).source,"
        f" told.at(-1).stale]) === JSON.stringify({wanted})"
    )
    found: dict[str, Any] = page.evaluate("told.at(-1)")
    return found


def counted(page: Browser, url: str, options: str = "") -> None:
    """`sidecar` whose answers are counted in `asked`, as [path, status]."""
    connect(
        page,
        url,
        f"""fetch: async (address, options) => {{
              const answer = await fetch(address, options);
              asked.push([new URL(address).pathname.slice({len(PREFIX)}), answer.status]);
              return answer;
            }}, {options}""",
        "window.asked = [];",
    )


STORED = "Object.entries(localStorage).map(([key, value]) => [key, JSON.parse(value).user])"


@pytest.fixture
def server(site: Site, start_sidecar: Start) -> RunningSidecar:
    """One of the test's own: there is one menu a server."""
    server = start_sidecar(**allowing(site))
    site.token = lambda: server.connection_token(sub="ada")
    return server


def test_the_menu_comes_and_changes_live(page, server):
    put(server, "home")
    connect(page, server.url)
    sync(page)
    first = until(page, "home")
    assert (first["user"], first["error"]) == ("ada", None)
    page.wait_for("menu.subscription !== null && menu.busy === null && menu.soon === null")
    version = put(server, "help", sort_order=2)
    assert until(page, "home", "help")["version"] == version
    assert server.request("DELETE", "/api/menu/home").status_code == 200
    assert until(page, "help")["version"] > version
    assert page.errors == []


def test_the_copy_is_shown_first_and_not_fetched_again_while_it_is_the_newest(page, server):
    put(server, "home")
    connect(page, server.url)
    sync(page)
    until(page, "home")
    page.evaluate("sidecar.close()")
    counted(page, server.url, "user: 'ada', io: null")
    sync(page)
    page.wait_for("told.length === 2 && menu.busy === null")
    before, after = page.evaluate("told")
    assert (before["source"], before["stale"]) == ("copy", True)
    assert (after["source"], after["stale"]) == ("server", False)
    assert before["items"] == after["items"]
    assert page.evaluate("asked") == [["/api/menu/version", 200], ["/api/menu", 304]]
    page.evaluate("menu.check()")
    assert page.evaluate("asked.slice(2)") == [["/api/menu/version", 304], ["/api/menu", 304]]


def test_while_it_is_live_the_version_alone_is_asked_for(page, server):
    put(server, "home")
    counted(page, server.url)
    sync(page)
    until(page, "home")
    page.wait_for("menu.sureOf !== null && menu.sureOf === menu.subscription && menu.busy === null")
    page.evaluate("menu.check()")
    page.evaluate("asked.splice(0)")
    page.evaluate("menu.check()")
    assert page.evaluate("asked") == [["/api/menu/version", 304]]


def test_without_a_server_the_copy_is_shown_and_the_server_asked_until_it_is_there(page, server):
    put(server, "home")
    connect(page, server.url)
    sync(page)
    until(page, "home")
    page.evaluate("sidecar.close()")
    server.stop()
    connect(page, server.url, "user: 'ada'")
    sync(page)
    page.wait_for("told.at(-1)?.error === 'no_token'")
    until(page, "home", source="copy", stale=True)
    server.start()
    until(page, "home")


def test_a_server_that_goes_leaves_the_menu_and_says_that_it_is_stale(page, site, server):
    put(server, "home")
    connect(page, server.url)
    sync(page)
    until(page, "home")
    page.wait_for("menu.subscription !== null && menu.busy === null && menu.soon === null")
    server.kill()
    page.wait_for("told.at(-1).error === 'unreachable'")
    until(page, "home", stale=True)
    server.start()
    put(server, "help", sort_order=2)
    until(page, "home", "help")


def test_rights_that_change_are_seen_live(page, server):
    put(server, "home")
    put(server, "admin", sort_order=2)
    give(server, "member", "ada", menus=["*"])
    connect(page, server.url)
    sync(page)
    until(page, "home", "admin")
    page.wait_for("menu.subscription !== null && menu.busy === null && menu.soon === null")
    give(server, "member", menus=["home"])
    assert until(page, "home")["roles"] == ["member"]


def test_rights_that_changed_while_nobody_looked_are_seen_though_the_version_is_the_same(page, server):
    put(server, "home")
    version = put(server, "admin", sort_order=2)
    give(server, "member", "ada", menus=["*"])
    connect(page, server.url)
    sync(page)
    until(page, "home", "admin")
    page.evaluate("sidecar.close()")
    give(server, "member", menus=["home"])
    connect(page, server.url, "user: 'ada', io: null")
    sync(page)
    assert until(page, "home")["version"] == version
    assert [item["key"] for item in page.evaluate("told[0].items")] == ["home", "admin"]


def test_no_user_is_shown_the_menu_of_another(page, site, server):
    put(server, "home")
    put(server, "admin", sort_order=2)
    give(server, "member", "ada", menus=["*"])
    give(server, "guest", "bob", menus=["home"])
    connect(page, server.url)
    sync(page)
    until(page, "home", "admin")
    # Bob logs in on the same page: another token, another menu.
    site.token = lambda: server.connection_token(sub="bob")
    page.evaluate("told.splice(0); sidecar.renew(); menu.check(); null")
    assert until(page, "home")["user"] == "bob"
    assert {state["user"]: [item["key"] for item in state["items"]] for state in page.evaluate("told")} == {
        "bob": ["home"]
    }
    assert sorted(user for _, user in page.evaluate(STORED)) == ["ada", "bob"]
    # and what changes for bob reaches him: his connection is his own
    page.wait_for("menu.subscription !== null && menu.busy === null && menu.soon === null")
    give(server, "guest", menus=["admin"])
    until(page, "admin")


def test_a_function_that_gives_no_token_makes_a_named_user_nobody(page, site, server):
    """The session at the back end has ended: what nobody sees is not shown, or kept, as this user's."""
    put(server, "home")
    give(server, "anonymous", menus=["home"])
    give(server, "member", "ada", menus=["home"])
    for none in ("null", "undefined"):
        page.evaluate(
            f"window.sidecar = new Sidecar({{ url: '{server.url}{PREFIX}', token: async () => {none}, user: 'ada', "
            f"{QUICK} }}); null"
        )
        sync(page)
        page.wait_for("menu.current.error?.code === 'no_token'")
        assert page.evaluate("[menu.current.items.length, menu.current.stale]") == [0, True]
        assert page.evaluate(STORED) == []
        page.evaluate("sidecar.close()")


def test_windows_of_a_server_that_ends_in_order_say_so(page, server):
    """It closes its sockets, answers what still comes on open connections, and is gone: who asked it in between was
    told that all is up to date."""
    put(server, "home")
    connect(
        page,
        server.url,
        """spread: 0, fetch: async (address, options) => {
             if (window.dying > 0 && address.endsWith("/api/menu")) return (dying -= 1), kept.clone();
             const answer = await fetch(address, options);
             if (address.endsWith("/api/menu") && answer.status === 200) window.kept = answer.clone();
             return answer;
           }""",
    )
    sync(page)
    until(page, "home")
    page.wait_for("menu.subscription !== null && menu.busy === null && menu.soon === null")
    page.evaluate("window.dying = 2; null")
    server.stop()
    page.wait_for("dying === 0 && menu.current.stale && menu.current.error !== null")


def test_nothing_is_kept_where_nobody_can_tell_whose_it_is(page, site, server):
    put(server, "home")
    give(server, "anonymous", menus=["home"])
    page.evaluate(f"window.sidecar = new Sidecar({{ url: '{server.url}{PREFIX}', {QUICK} }}); null")
    sync(page)
    assert until(page, "home")["user"] is None
    assert page.evaluate(STORED) == []


def test_forgotten_it_is_gone_in_memory_and_storage(page, server):
    put(server, "home")
    connect(page, server.url)
    sync(page)
    until(page, "home")
    assert len(page.evaluate(STORED)) == 1
    page.evaluate("menu.forget()")
    assert page.evaluate("[told.at(-1).items, told.at(-1).user, localStorage.length]") == [[], None, 0]


def test_an_answer_that_comes_after_it_was_forgotten_brings_nothing_back(page, server):
    put(server, "home")
    page.evaluate("window.gate = new Promise((resolve) => (window.open_gate = resolve)); null")
    connect(
        page,
        server.url,
        "io: null, fetch: async (...request) => { const answer = await fetch(...request); window.held = true;"
        " await gate; return answer; }",
    )
    sync(page)
    page.wait_for("window.held")
    page.evaluate("menu.forget(); open_gate(); new Promise((resolve) => setTimeout(resolve))")
    assert page.evaluate("[localStorage.length, menu.current.items]") == [0, []]


@pytest.mark.parametrize(
    "storage",
    [
        "{ getItem() { throw Error('private'); }, setItem() { throw Error('quota'); }, removeItem() { throw 1; } }",
        '{ getItem: () => \'{"user": "ada", "body": 5\', setItem() {}, removeItem() {} }',
        '{ getItem: () => \'{"user": "ada", "body": {"items": 7}}\', setItem() {}, removeItem() {} }',
        "{ getItem: () => 'null', setItem() {}, removeItem() {} }",
        "null",
    ],
)
def test_storage_that_fails_or_holds_rubbish_is_survived(page, server, storage):
    put(server, "home")
    connect(page, server.url, "user: 'ada'")
    sync(page, f"storage: {storage}")
    until(page, "home")
    assert page.evaluate("told.length") == 1
    page.evaluate("menu.forget()")
    assert page.errors == []


def test_an_older_answer_never_takes_the_place_of_a_newer_one(page, server):
    """Of a process that lags behind, or one that was overtaken on the way."""
    old = put(server, "home")
    connect(
        page,
        server.url,
        """io: null, fetch: async (address, options) => {
             if (window.lag && address.endsWith("/api/menu")) return lag.clone();
             const answer = await fetch(address, options);
             if (address.endsWith("/api/menu") && answer.status === 200) (window.answers ??= []).push(answer.clone());
             return answer;
           }""",
    )
    sync(page)
    assert until(page, "home")["version"] == old
    new = put(server, "help", sort_order=2)
    page.evaluate("menu.check()")
    assert until(page, "home", "help")["version"] == new
    put(server, "late", sort_order=3)
    page.evaluate("window.lag = answers[0]; menu.check()")
    assert until(page, "home", "help")["version"] == new
    page.evaluate("window.lag = null")
    until(page, "home", "help", "late")  # it has asked again by itself


def test_another_journal_at_the_same_address_replaces_a_newer_version(page, site, server, start_sidecar):
    """A version is the second of its change, or one more than the last: after many it is ahead of the clock."""
    for number in range(60):
        put(server, "of-the-old", name=f"name {number}")
    connect(page, server.url)
    sync(page)
    version = until(page, "of-the-old")["version"]
    server.stop()
    other = start_sidecar(**allowing(site), SIDECAR_PORT=str(server.port))
    site.token = lambda: other.connection_token(sub="ada")
    assert put(other, "of-the-new") < version
    page.evaluate("sidecar.renew(); menu.check()")
    until(page, "of-the-new")


def test_many_changes_at_once_are_asked_for_together(page, server):
    put(server, "home")
    counted(page, server.url)
    sync(page)
    until(page, "home")
    page.wait_for("menu.subscription !== null && menu.busy === null && menu.soon === null")
    page.evaluate("asked.splice(0)")
    items = [{"key": f"key-{number}", "name": "x", "menu_level": "root", "sort_order": number} for number in range(50)]
    assert server.post("/api/menu/sync", {"items": items}).status_code == 200
    until(page, *(f"key-{number}" for number in range(50)))
    assert len(page.evaluate("asked")) < 10


def test_after_news_each_browser_waits_for_a_time_of_its_own(page, server):
    put(server, "home")
    page.evaluate("""
        window.waits = [];
        {
          const { setTimeout } = window;
          window.setTimeout = (action, wait) => { waits.push(wait); return setTimeout(action, wait); };
        }
        null""")
    connect(page, server.url, "spread: 1234, random: () => 0.25")
    sync(page)
    until(page, "home")
    page.wait_for("menu.subscription !== null && menu.busy === null && menu.soon === null")
    page.evaluate("waits.splice(0)")
    put(server, "help", sort_order=2)
    until(page, "home", "help")
    assert 1234 / 4 in page.evaluate("waits")


def test_with_two_processes_of_which_either_may_lag_the_last_change_wins(page, site, server, start_sidecar):
    second = start_sidecar(share=server, **allowing(site))
    loop = Loop()
    proxy = Proxy(loop, [server.port, second.port], random.Random(2))
    put(server, "home")
    connect(page, proxy.url)
    sync(page)
    until(page, "home")
    for number in range(20):
        version = put((server, second)[number % 2], "home", name=f"name {number}")
        if number % 7 == 3:
            proxy.cut(1.0)
    page.wait_for(f"told.at(-1).version === {version} && told.at(-1).items[0].name === 'name 19'")
    assert page.evaluate("told.every(({ version }, at) => at === 0 || version >= told[at - 1].version)")
    proxy.close()
    loop.close()


def test_without_socket_io_it_is_asked_for_again_and_again(page, server):
    put(server, "home")
    connect(page, server.url, "io: null")
    sync(page, "every: 100")
    until(page, "home")
    put(server, "help", sort_order=2)
    until(page, "home", "help")


def test_a_window_without_connection_learns_from_one_that_has_it(page, server):
    """`storage` events: what one window has stored, the others show."""
    put(server, "home")
    connect(page, server.url, "io: null")
    sync(page)
    until(page, "home")
    page.evaluate("window.other = window.open('/'); null")
    page.wait_for("other.Sidecar")
    page.evaluate(
        f"window.far = new other.Sidecar({{ url: '{server.url}{PREFIX}', token: other.fetchToken, {QUICK} }});"
        f"window.farMenu = far.menu({{ {RARELY}, storage: other.localStorage }}); farMenu.start()"
    )
    page.evaluate("window.before = told.length; null")
    put(server, "help", sort_order=2)
    until(page, "home", "help", source="copy")
    # and when the user logs out there, this one shows nothing of the user any more
    page.evaluate("window.before = told.length; farMenu.forget(); far.close()")
    page.wait_for("told.slice(before).some((state) => state.items.length === 0)")
    page.evaluate("other.close()")


def test_stopped_it_leaves_no_timer_and_no_listener(page, server):
    put(server, "home")
    page.evaluate("""
        window.listening = 0; window.timers = new Set();
        for (const target of [window, document]) {
          const { addEventListener, removeEventListener } = target;
          target.addEventListener = (...given) => { listening += 1; addEventListener.apply(target, given); };
          target.removeEventListener = (...given) => { listening -= 1; removeEventListener.apply(target, given); };
        }
        {
          const { setTimeout, clearTimeout } = window;
          window.setTimeout = (action, wait) => {
            const timer = setTimeout(() => { timers.delete(timer); action(); }, wait);
            timers.add(timer);
            return timer;
          };
          window.clearTimeout = (timer) => { timers.delete(timer); clearTimeout(timer); };
        }
        null""")
    connect(page, server.url)
    sync(page)
    until(page, "home")
    page.wait_for("menu.subscription !== null && menu.busy === null && menu.soon === null")
    assert page.evaluate("[listening > 0, timers.size > menu._timers.size, menu._timers.size]") == [True, True, 1]
    page.evaluate("menu.stop()")
    page.wait_for("timers.size === 0 && listening === 0")
    assert page.evaluate("[menu._timers.size, sidecar._line.socket]") == [0, None]
    told = page.evaluate("told.length")
    put(server, "help", sort_order=2)
    page.evaluate("menu.check()")
    assert page.evaluate("told.length") == told
    page.evaluate("menu.start()")
    until(page, "home", "help")


def test_a_token_is_in_no_address_and_no_storage(page, site, server):
    given: list[str] = []

    def token() -> str:
        given.append(server.connection_token(sub="ada"))
        return given[-1]

    site.token = token
    put(server, "home")
    connect(page, server.url)
    sync(page)
    until(page, "home")
    page.wait_for("menu.subscription !== null")
    seen = page.evaluate(
        "JSON.stringify([performance.getEntriesByType('resource').map((entry) => entry.name), location.href,"
        " Object.entries(localStorage)])"
    )
    assert given
    assert [text for text in given if text in seen or text.split(".")[2] in seen] == []
    assert given[0] not in server.output()


def test_permissions_are_known_and_change_live(page, server):
    give(
        server,
        "editor",
        "ada",
        grants=[
            {"resource": "article*", "action": "*", "effect": "allow"},
            {"resource": "article:7", "action": "delete", "effect": "deny"},
        ],
    )
    connect(page, server.url)
    sync(page, kind="permissions")
    page.wait_for("told.at(-1)?.stale === false")
    asked = (("article:8", "delete"), ("article:7", "delete"), ("user", "read"))
    can = ", ".join(f"permissions.can('{resource}', '{action}')" for resource, action in asked)
    assert page.evaluate(f"[{can}]") == [True, False, False]
    page.wait_for("permissions.subscription !== null && permissions.busy === null && permissions.soon === null")
    give(server, "editor", grants=[{"resource": "user", "action": "read", "effect": "allow"}])
    page.wait_for("permissions.can('user', 'read')")
    assert page.evaluate(f"[{can}]") == [False, False, True]
    assert page.evaluate("told.at(-1).roles") == ["editor"]


def test_menu_and_permissions_share_one_connection(page, server):
    put(server, "home")
    connect(page, server.url)
    sync(page, kind="permissions")
    sync(page)
    page.wait_for("menu.subscription !== null && permissions.subscription !== null")
    page.wait_for("menu.current.items.length === 1")
    assert page.evaluate("sidecar._line.members.size") == 2
    page.evaluate("menu.stop()")
    assert page.evaluate("sidecar._line.connected")
    page.evaluate("permissions.stop()")
    assert page.evaluate("sidecar._line.socket") is None
