"""The page of deliveries in a real Chromium: what was refused appears, says why, is replayed and reproduced; hostile
bodies stay text."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import subprocess
from typing import Any

import pytest

from tests.chromium import Browser
from tests.conftest import Start
from tests.pages import DESKTOP, PHONE, fill, log_in, nameless, needs_no_sideways_scrolling, press, shows, text
from tests.programs import wait_until
from tests.servers import RunningSidecar

WEBHOOK = "/api/webhooks/deployment"
LOOK = "document.dispatchEvent(new Event('visibilitychange')); null"
"""Has the page look for new ones now, as when one comes back to it."""


@pytest.fixture(scope="module")
def cookie(sidecar: RunningSidecar) -> str:
    code = re.search(r"code=([\w-]+)", sidecar.cli("login").stdout)
    assert code
    return sidecar.post("/login", token="", data={"code": code[1]}).cookies["sidecar_login"]


class Page:
    """The page, open at `address` (what follows the #)."""

    def __init__(self, browser: Browser, server: RunningSidecar, address: str = "/"):
        self.browser = browser
        self.server = server
        browser.open(f"{server.url}/project-dashboard/deliveries#{address}")

    def go(self, address: str) -> None:
        self.browser.evaluate(f"(location.hash = {json.dumps('#' + address)}); null")

    def opened(self, number: int, query: str = "") -> None:
        self.go(f"/{number}{query}")
        shows(self.browser, "#one-title", f"Delivery {number}")

    def look(self) -> None:
        self.browser.evaluate(LOOK)

    def text(self, selector: str) -> str:
        """As it stands in the document, also where it is hidden."""
        found: str = self.browser.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")
        return found

    def numbers(self) -> list[int]:
        found = self.browser.evaluate("[...document.querySelectorAll('#list .name')].map(node => node.textContent)")
        return [int(number) for number in found]

    def waits_for(self, numbers: list[int]) -> None:
        self.browser.wait_for(
            "JSON.stringify([...document.querySelectorAll('#list .name')].map(node => Number(node.textContent))) === "
            + json.dumps(json.dumps(numbers, separators=(",", ":")))
        )

    def fields(self, table: str) -> dict[str, str]:
        rows = f"[...document.querySelectorAll('{table} tbody tr')].map(row => [...row.cells].map(c => c.textContent))"
        return dict(self.browser.evaluate(rows))

    def facts(self, selector: str = "#facts") -> dict[str, str]:
        found = self.browser.evaluate(
            f"[...document.querySelectorAll('{selector} dt')].map(n => [n.textContent, n.nextSibling.textContent])"
        )
        return dict(found)


@pytest.fixture
def page(browser: Browser, sidecar: RunningSidecar, cookie: str) -> Page:
    browser.set_cookie(f"{sidecar.url}/", "sidecar_login", cookie)
    browser.resize(*DESKTOP)
    page = Page(browser, sidecar)
    shows(browser, "#link", "live")
    return page


def posted(server: RunningSidecar, body: bytes | dict[str, Any], name: str, **headers: str) -> dict[str, Any]:
    """Post it, whatever the answer; what is kept of it."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    server.post(WEBHOOK, content=content, headers={"User-Agent": name, **headers})
    items = server.get("/api/deliveries?limit=100").json()["items"]
    found: dict[str, Any] = next(item for item in items if item["source"] == name[:200])
    return found


def test_what_was_refused_appears_by_itself_and_says_why(page, name):
    token = page.server.post("/api/tokens", {"name": f"ci of {name}", "scopes": ["webhooks:write"]}).json()
    body = {"type": "log_batch", "project": name, "deployment_id": [], "logs": [{"level": {}}, None], "big": 2**70}
    headers = {"Authorization": f"Token {token['token']}", "X-Extra": "seen", "Content-Type": "application/json"}
    kept = posted(page.server, body, name, **headers)
    link = f"#list a[href='#/{kept['number']}']"
    shows(page.browser, link, "quarantined")
    press(page.browser, link)
    shows(page.browser, "#one-title", f"Delivery {kept['number']}")
    shows(page.browser, "#reason-title", "Why it was refused")
    assert kept["reason"]["detail"] in text(page.browser, "#reason-detail")
    assert page.fields("#fields") == {item["path"]: item["message"] for item in kept["reason"]["errors"]}
    assert {"deployment_id", "logs[0].level", "logs[1]"} == page.fields("#fields").keys()
    shown = page.facts("#headers")
    assert (shown["Authorization"], shown["X-Extra"], shown["User-Agent"]) == ("[redacted]", "seen", name)
    facts = page.facts()
    assert facts["Posted by"] == f"ci of {name} (token {token['id']})"
    assert (facts["SHA-256"], facts["Posted to"]) == (kept["body_sha256"], WEBHOOK)
    assert facts["Size"] == f"{len(json.dumps(body))} bytes"
    assert page.text("#body") == json.dumps(body, indent=2).replace("[]", "[]"), "numbers as they came"
    press(page.browser, "#pretty")
    assert page.text("#body") == json.dumps(body)
    assert page.browser.evaluate("document.activeElement.id") == "one-title"
    assert page.browser.evaluate("document.title") == f"Delivery {kept['number']} quarantined · sidecar"
    assert nameless(page.browser) == []
    assert page.browser.errors == []


def test_a_signed_one_names_its_secret(page, name):
    secret = page.server.post("/api/secrets", {"name": name, "projects": [name]}).json()
    body = b"not json, but signed"
    signature = hmac.new(secret["secret"].encode(), body, "sha256").hexdigest()
    headers = {"User-Agent": name, "X-Hub-Signature-256": f"sha256={signature}"}
    assert page.server.post(WEBHOOK, token="", content=body, headers=headers).status_code == 400
    (kept,) = [item for item in page.server.get("/api/deliveries").json()["items"] if item["source"] == name]
    page.opened(kept["number"])
    assert page.facts()["Posted by"] == f"{name} (webhook secret {secret['id']})"
    assert page.facts("#headers")["X-Hub-Signature-256"] == "[redacted]"
    assert page.server.request("DELETE", f"/api/secrets/{secret['id']}").status_code == 200
    page.browser.open("about:blank")
    page = Page(page.browser, page.server, f"/{kept['number']}")
    shows(page.browser, "#facts", "revoked")


EVIL = "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
TURNED = "\u202etxt.exe \u2066\u200b\ufeff"


def test_hostile_text_is_shown_and_does_nothing(page, name, tmp_path):
    evil = f"{EVIL} {name}"
    body = f"{evil}\x1b[31mred\x1b[0m\x00\x07\r\n{TURNED}\u0645\u0631\u062d\u0628\u0627 {'x' * 5_000}"
    headers = {
        "Content-Type": "text/plain",
        "X-Evil": EVIL,
        "X-&b": EVIL,
        "X-Turned": TURNED.encode(),
        "Idempotency-Key": evil[:100],
    }
    kept = posted(page.server, body.encode(), evil, **headers)
    page.look()
    page.opened(kept["number"])
    shown = page.text("#body")
    assert shown.startswith(f"{evil}␛[31mred␛[0m␀␇␍\n⟨U+202E⟩txt.exe ⟨U+2066⟩⟨U+200B⟩⟨U+FEFF⟩\u0645\u0631")
    assert shown.endswith("x" * 5_000)
    told = page.facts("#headers")
    assert (told["X-Evil"], told["User-Agent"]) == (EVIL, evil)
    assert "⟨U+202E⟩" in told["X-Turned"] or "\u202e" not in told["X-Turned"]
    assert page.facts()["Client"] == evil
    assert (
        page.browser.evaluate("document.querySelectorAll('main script, main img, main b:not(#verdicts b)').length") == 0
    )
    stored = posted(page.server, {"type": "test", "project": f"{EVIL} {name}"}, f"{name}-2")
    page.go(f"/{stored['number']}?verdict=test")
    shows(page.browser, "#list", EVIL)
    shows(page.browser, "#one-title", f"Delivery {stored['number']}")
    assert "owned" not in page.browser.evaluate("document.title")
    for size in (PHONE, DESKTOP):
        page.browser.screenshot(tmp_path / "hostile.png", *size)
        assert needs_no_sideways_scrolling(page.browser)
    assert page.browser.errors == []


BODIES = [
    b"it's $(touch owned) `touch owned` \\ \"quoted\" !! !x ^a^b ${HOME} \\n '\\''",
    b"@/etc/hostname",
    b"line one\nline two !history\n^old^new\n'; touch owned; '",
    "caf\u00e9 \u4f60\u597d \U0001f600\tTab \x1b[201~\ntouch owned\n \x7f \u202e\u2028 ' ! \\ 001".encode(),
    b"before\x00after",
    b"",
    b"-d x --data y",
    b"{" * 200_000,
]


def test_the_curl_posts_the_same_bytes_and_nothing_else(page, name, tmp_path):
    page.browser.download_into(tmp_path)
    for place, body in enumerate(BODIES):
        kept = posted(page.server, body, f"{name}-{place}", **{"Content-Type": "text/plain; x='$(touch owned)'"})
        page.opened(kept["number"])
        command = page.text("#curl")
        assert ("not byte for byte" in page.text("#curl-hint")) is False
        if f"@delivery-{kept['number']}.txt" in command:
            assert len(body) > 100_000 or b"\0" in body
            press(page.browser, "#download")
            wait_until((tmp_path / f"delivery-{kept['number']}.txt").exists, "the body is downloaded")
        again = command.replace("YOUR_TOKEN", page.server.token) + f" -sS -A {name}-{place}-again"
        done = subprocess.run(["bash", "-c", again], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (command, done.stderr)
        items = page.server.get("/api/deliveries?limit=5").json()["items"]
        (found,) = [item for item in items if item["source"] == f"{name}-{place}-again"]
        assert found["body_sha256"] == hashlib.sha256(body).hexdigest() == kept["body_sha256"], command
        assert found["headers"]["Content-Type"] == kept["headers"]["Content-Type"]
        assert found["reason"] == kept["reason"]
    assert not (tmp_path / "owned").exists()
    changed = posted(page.server, f"no json, {page.server.token}".encode(), f"{name}-secret")
    page.opened(changed["number"])
    shows(page.browser, "#curl-hint", "not byte for byte")
    assert page.server.token not in page.browser.evaluate("document.documentElement.outerHTML")
    press(page.browser, "#copy")
    page.browser.wait_for("/^(Copied|Selected)/.test(document.getElementById('copied').textContent)")
    assert page.browser.errors == []


def test_a_body_of_a_mebibyte_is_shown_in_part_and_then_whole(page, name, tmp_path):
    lines = [{"message": "x" * 5_000, "n": number} for number in range(200)]
    body = json.dumps({"type": "log_batch", "project": name, "logs": lines}).encode()
    kept = posted(page.server, body, name)
    page.opened(kept["number"])
    shows(page.browser, "#body-note", "the first 100,000 of")
    assert len(page.text("#body")) == 100_000
    page.browser.screenshot(tmp_path / "large.png", *PHONE)
    assert needs_no_sideways_scrolling(page.browser)
    press(page.browser, "#whole")
    assert page.text("#body") == json.dumps(json.loads(body), indent=2)
    assert text(page.browser, "#body-note") == ""
    deep = posted(page.server, b"[" * 1_000 + b"]" * 1_000, f"{name}-deep")
    page.opened(deep["number"])
    assert page.text("#body") == "[" * 1_000 + "]" * 1_000
    assert page.browser.errors == []


def test_a_replay_shows_why_it_was_refused_again_and_then_its_deployment(page, name):
    line = {"type": "log_entry", "message": "early", "project": "", "deployment_id": name}
    kept = posted(page.server, line, name)
    page.opened(kept["number"])
    press(page.browser, "#replay")
    shows(page.browser, "#outcome", "Refused (400)")
    assert page.fields("#outcome") == {item["path"]: item["message"] for item in kept["reason"]["errors"]}
    posted(page.server, {"type": "deployment_started", "project": name, "deployment_id": name}, f"{name}-start")
    press(page.browser, "#replay")
    shows(page.browser, "#outcome", "Taken again as event")
    shows(page.browser, "#reason-title", "Why it was refused at first")
    assert page.facts()["Verdict"] == "replayed"
    copy = page.server.get("/api/deliveries", params={"project": name}).json()["items"][0]
    assert copy["replay_of"] == kept["number"]
    shows(page.browser, f"#list a[href='#/{copy['number']}']", f"{name} / {name}")
    page.opened(copy["number"])
    assert page.facts()["Replay of"] == f"delivery {kept['number']}"
    press(page.browser, "#replay")
    shows(page.browser, "#replay", "Replay it all the same")
    assert page.text("#outcome") == ""
    press(page.browser, "#replay")
    shows(page.browser, "#outcome", "Taken again as event")
    assert len(page.server.get("/api/deliveries", params={"project": name}).json()["items"]) == 3
    page.browser.errors.remove(page.browser.errors[0])  # Chromium tells each refusal
    assert page.browser.errors == []
    press(page.browser, "#outcome a")
    shows(page.browser, "#detail-title", name)


def test_the_filter_stands_in_the_address_and_older_ones_are_a_press_away(page, name):
    kept = [posted(page.server, {"type": "test", "project": name}, f"{name}-{n}")["number"] for n in range(23)]
    other = posted(page.server, {"type": "deployment_started", "project": name, "deployment_id": name}, f"{name}-other")
    kept.reverse()
    fill(page.browser, "#project-name", name)
    press(page.browser, "#filter button")
    page.waits_for([other["number"], *kept[:19]])
    press(page.browser, "[data-verdict=test]")
    page.waits_for(kept[:20])
    press(page.browser, "#more")
    page.waits_for(kept)
    assert page.browser.evaluate("document.getElementById('more').hidden") is True
    press(page.browser, "#list li:nth-child(2) a")
    shows(page.browser, "#one-title", f"Delivery {kept[1]}")
    address = page.browser.evaluate("location.href")
    page.browser.open("about:blank")
    page.browser.open(address)
    page.waits_for(kept[:20])
    shows(page.browser, "#one-title", f"Delivery {kept[1]}")
    current = "[...document.querySelectorAll('[aria-current]')].map(node => node.getAttribute('href'))"
    assert page.browser.evaluate(current) == [f"#/?verdict=test&project={name}", address[address.index("#") :]]
    page.browser.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'})); null")
    page.browser.wait_for("document.getElementById('one').hidden")
    assert page.browser.evaluate("document.activeElement.getAttribute('href')") == address[address.index("#") :]
    page.go(f"/?project={name}&verdict=quarantined")
    shows(page.browser, "#none", "without one")
    page.go("/?project=" + "x" * 300)
    shows(page.browser, "#project-error", "project")
    page.go("/999999999")
    shows(page.browser, "#gone", "no such delivery")


def test_who_reads_the_list_is_not_moved_by_new_ones(page, name):
    first = posted(page.server, {"type": "test", "project": name}, f"{name}-1")["number"]
    page.go(f"/?project={name}")
    page.waits_for([first])
    page.browser.evaluate("document.querySelector('#list a').focus()")
    page.browser.evaluate(
        "window.moved = []; window.keep = (entries) => moved.push(...entries.map(entry => entry.value));"
        "window.shifts = new PerformanceObserver(list => keep(list.getEntries()));"
        "shifts.observe({ type: 'layout-shift' }); null"
    )
    drawn = (
        "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => "
        "{ keep(shifts.takeRecords()); done(moved) })))"
    )
    second = posted(page.server, {"type": "test", "project": name}, f"{name}-2")["number"]
    page.look()
    shows(page.browser, "#fresh", "Show 1 new")
    assert page.numbers() == [first]
    assert page.browser.evaluate("document.activeElement.querySelector('.name').textContent") == str(first)
    assert page.browser.evaluate(drawn) == []
    press(page.browser, "#fresh")
    page.waits_for([second, first])
    page.browser.evaluate("document.activeElement.blur(); moved = []; null")
    page.opened(first, f"?project={name}")
    page.opened(second, f"?project={name}")
    assert page.browser.evaluate(drawn) == [], "no scroll bar comes or goes"
    third = posted(page.server, {"type": "test", "project": name}, f"{name}-3")["number"]
    page.look()
    page.waits_for([third, second, first])
    assert page.browser.evaluate("document.getElementById('fresh').hidden") is True


def test_it_works_on_a_phone(page, name, tmp_path):
    page.browser.screenshot(tmp_path / "list.png", *PHONE)
    kept = posted(page.server, b"not json " + b"y" * 400, f"{name} {'z' * 300}")
    page.look()
    shows(page.browser, "#list", str(kept["number"]))
    page.browser.screenshot(tmp_path / "list.png", *PHONE)
    assert needs_no_sideways_scrolling(page.browser)
    press(page.browser, f"#list a[href='#/{kept['number']}']")
    shows(page.browser, "#one-title", f"Delivery {kept['number']}")
    assert page.browser.evaluate("document.getElementById('list').checkVisibility()") is False
    page.browser.screenshot(tmp_path / "one.png", *PHONE)
    assert needs_no_sideways_scrolling(page.browser)
    assert page.facts()["Posted by"].startswith("admin (token ")
    press(page.browser, "#back a")
    page.browser.wait_for("document.getElementById('list').checkVisibility()")


def test_from_a_stranger_to_a_login_that_has_ended(browser, start_sidecar: Start):
    server = start_sidecar()
    Page(browser, server)
    shows(browser, "#problem", "python -m sidecar login")
    assert browser.evaluate("document.getElementById('deliveries').checkVisibility()") is False
    log_in(browser, server)
    browser.evaluate("[...document.querySelectorAll('header a')].find(a => a.innerText === 'deliveries').click()")
    browser.wait_for("document.title.startsWith('Deliveries') && document.readyState === 'complete'")
    shows(browser, "#link", "live")
    shows(browser, "#none", "nothing was refused")
    server.post(WEBHOOK, {"type": "deployment_started", "project": "p", "deployment_id": "1"})
    server.post(WEBHOOK, content=b"not json")
    server.post(WEBHOOK, content=b"nor this")
    browser.evaluate(LOOK)
    shows(browser, "[data-verdict=quarantined]", "2")
    shows(browser, "[data-verdict='']", "3")
    press(browser, "[data-verdict=test]")
    shows(browser, "#none", "There is none")
    assert server.request("DELETE", "/api/projects/p").status_code == 200
    browser.evaluate("(location.hash = '#/1'); null")
    shows(browser, "#replay-hint", "forgotten with its project")
    assert browser.evaluate("document.getElementById('replay').disabled") is True
    assert browser.evaluate("document.getElementById('curl').checkVisibility()") is False
    shows(browser, "[data-verdict=erased]", "1")
    assert browser.errors == []
    server.kill()
    browser.evaluate(LOOK)
    shows(browser, "#link", "what you see is old")
    server.start()
    browser.evaluate(LOOK)
    shows(browser, "#link", "live")
    assert server.request("DELETE", f"/api/tokens/{server.token.split('_')[1]}").status_code == 200
    browser.evaluate(LOOK)
    shows(browser, "#problem", "Your login has ended")
