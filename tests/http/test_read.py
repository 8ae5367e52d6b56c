"""The read API: filters, pages, logs and events, each with the seq that it is true at."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from urllib.parse import quote, unquote, urlencode

import pytest

from sidecar.domain.times import utc_text

WEBHOOK = "/api/webhooks/deployment"


def report(sidecar, **fields: object) -> dict:
    answer = sidecar.post(WEBHOOK, {"type": "deployment_started", "status": "running"} | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def log(sidecar, project: str, *lines: tuple[str, str]) -> dict:
    entries = [{"level": level, "message": message} for level, message in lines]
    return report(sidecar, type="log_batch", project=project, deployment_id=project, logs=entries)


def listed(sidecar, **query: object) -> dict:
    answer = sidecar.get(f"/api/deployments?{urlencode(query, doseq=True)}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(page: dict) -> list[str]:
    return [item["id"] for item in page["items"]]


def cursor(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.fixture
def five(sidecar, name):
    """Five deployments of a project of its own, 1 the oldest, in different states."""
    statuses = ["success", "failed", "running", "success", "queued"]
    for number, status in enumerate(statuses, 1):
        kind = "deployment_completed" if status in ("success", "failed") else "deployment_started"
        report(sidecar, type=kind, project=name, deployment_id=f"{name}/{number}", status=status)
    return [f"{name}/{number}" for number in range(5, 0, -1)]


def test_lists_have_items_next_seq_and_epoch(sidecar, name, five):
    page = listed(sidecar, project=name)
    info = sidecar.get("/api/info").json()
    assert set(page) == {"items", "next", "seq", "epoch", "offset"}
    assert (page["seq"], page["epoch"], page["next"]) == (info["seq"], info["epoch"], None)
    assert ids(page) == five
    assert set(sidecar.get("/api/projects").json()) == {"items", "next", "seq", "epoch", "offset"}


@pytest.mark.parametrize(
    ("status", "numbers"),
    [
        (["success"], [4, 1]),
        (["success,failed"], [4, 2, 1]),
        (["running", "queued"], [5, 3]),
        (["timed_out"], []),
    ],
)
def test_deployments_are_filtered_by_status(sidecar, name, five, status, numbers):
    assert ids(listed(sidecar, project=name, status=status)) == [f"{name}/{number}" for number in numbers]


def test_deployments_are_filtered_by_project(sidecar, name, five):
    report(sidecar, project=f"{name}-other", deployment_id=f"{name}-other")
    assert ids(listed(sidecar, project=[name, f"{name}-other"])) == [f"{name}-other", *five]
    assert ids(listed(sidecar, project=f"{name}-nobody")) == []


def test_deployments_are_filtered_by_time(sidecar, name, five):
    first_seen = {item["id"]: item["first_at"] for item in listed(sidecar, project=name)["items"]}
    third = first_seen[f"{name}/3"]
    from_third = ids(listed(sidecar, project=name, since=third))
    before_third = ids(listed(sidecar, project=name, until=third))
    assert sorted(from_third + before_third, reverse=True) == sorted(five, reverse=True)
    assert f"{name}/3" in from_third
    assert all(first_seen[id] < third for id in before_third)
    assert ids(listed(sidecar, project=name, since="2999-01-01T00:00:00Z")) == []
    assert ids(listed(sidecar, project=name, since="2999-01-01T02:00:00+02:00", until="2000-01-01")) == []


def test_pages_by_cursor_are_stable_while_new_deployments_arrive(sidecar, name, five):
    """Page numbers shift when something new comes first; a cursor does not."""
    seen: list[str] = []
    page = listed(sidecar, project=name, limit=2)
    while True:
        seen += ids(page)
        if page["next"] is None:
            break
        report(sidecar, project=name, deployment_id=f"{name}/new-{len(seen)}")
        page = listed(sidecar, project=name, limit=2, cursor=page["next"])
    assert seen == five


def test_pages_by_number_tell_how_many_there_are(sidecar, name, five):
    page = listed(sidecar, project=name, limit=2, page=2)
    assert ids(page) == five[2:4]
    assert page["pagination"] == {
        "page": 2,
        "limit": 2,
        "total": 5,
        "totalPages": 3,
        "hasNext": True,
        "hasPrev": True,
    }
    last = listed(sidecar, project=name, limit=2, page=3)["pagination"]
    assert (last["hasNext"], last["hasPrev"]) == (False, True)
    beyond = listed(sidecar, project=name, limit=2, page=9)
    assert (ids(beyond), beyond["next"], beyond["pagination"]["total"]) == ([], None, 5)
    assert listed(sidecar, project=f"{name}-nobody", page=1)["pagination"]["totalPages"] == 0


BAD_QUERIES = {
    "limit": ["0", "201", "-1", "ten", "1.5", "", "9" * 30, "١"],
    "page": ["0", "-1", "x"],
    "cursor": ["nonsense", "!", cursor("d"), cursor("x5"), cursor("d-5"), cursor("d" + "9" * 19), "é"],
    "status": ["flying", "success,flying", "Success"],
    "since": ["yesterday", "2026-13-01", "x" * 100],
    "until": ["tomorrow"],
    "project": ["", "a\x00b", "x" * 201],
}


@pytest.mark.parametrize(("parameter", "value"), [(name, value) for name, vs in BAD_QUERIES.items() for value in vs])
def test_a_bad_parameter_is_named(sidecar, parameter, value):
    answer = sidecar.get(f"/api/deployments?{urlencode({parameter: value})}")
    assert (answer.status_code, [item["path"] for item in answer.json()["errors"]]) == (400, [parameter])


def test_all_bad_parameters_are_named_at_once(sidecar):
    answer = sidecar.get(f"/api/deployments?{urlencode({name: values[0] for name, values in BAD_QUERIES.items()})}")
    assert answer.status_code == 400
    assert {item["path"] for item in answer.json()["errors"]} == set(BAD_QUERIES)


def test_too_many_filters_are_refused_not_cut(sidecar):
    """Dropping the fifty-first project would silently show less than was asked for."""
    query = urlencode({"project": [f"p{number}" for number in range(51)]}, doseq=True)
    assert sidecar.get(f"/api/deployments?{query}").status_code == 400


IDS = [
    "with/slash",
    "with space",
    "日本語",
    "50%25",
    "a//b",
    "q?x=1&y#z",
    "a+b",
    "'quoted\"",
    "../up",
    "-",
    "0",
    "x" * 200,
]


@pytest.mark.parametrize("id", IDS)
def test_an_id_may_hold_anything_printable(sidecar, id):
    assert report(sidecar, project="ids", deployment_id=id, type="log_entry", message="x")["deployment_id"] == id
    for tail, key in (("", "id"), ("/logs", "items"), ("/events", "items")):
        answer = sidecar.get(f"/api/deployments/{quote(id, safe='')}{tail}")
        assert answer.status_code == 200, answer.text
        assert answer.json()[key]


def test_an_id_may_be_a_number(sidecar):
    assert report(sidecar, project="ids", deployment_id=4711)["deployment_id"] == "4711"
    assert sidecar.get("/api/deployments/4711").json()["id"] == "4711"


def test_one_deployment_is_true_at_a_seq(sidecar, name):
    report(sidecar, project=name, deployment_id=name, type="step_started", step_name="build")
    last = report(sidecar, project=name, deployment_id=name, type="step_completed", step_name="build", status="success")
    report(sidecar, project=f"{name}-other", deployment_id=f"{name}-other")
    view = sidecar.get(f"/api/deployments/{name}").json()
    assert str(view["last_seq"]) == last["event_id"]
    assert view["seq"] > view["last_seq"], "the head counts the events of others as well"
    assert view["epoch"] == last["epoch"]
    assert [(step["name"], step["status"]) for step in view["steps"]] == [("build", "success")]


# Logs


LINES = [
    ("info", "100% done"),
    ("debug", "snake_case"),
    ("warn", 'it\'s "quoted"'),
    ("error", "path/to\\file"),
    ("info", "snakeXcase 100 done"),
    ("info", "Größe"),
]


@pytest.fixture(scope="module")
def logged(sidecar):
    log(sidecar, "logged", *LINES)
    return "/api/deployments/logged/logs"


def found(sidecar, path: str, **query: object) -> list[str]:
    answer = sidecar.get(f"{path}?{urlencode(query, doseq=True)}")
    assert answer.status_code == 200, answer.text
    return [item["message"] for item in answer.json()["items"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100%", ["100% done"]),
        ("%", ["100% done"]),
        ("_", ["snake_case"]),
        ("E_C", ["snake_case"]),
        ("'", ['it\'s "quoted"']),
        ('"quoted"', ['it\'s "quoted"']),
        ("\\", ["path/to\\file"]),
        ("/to", ["path/to\\file"]),
        ("DONE", ["100% done", "snakeXcase 100 done"]),
        ("Größe", ["Größe"]),
        ("' OR 1=1 --", []),
        ("", [message for _, message in LINES]),
    ],
)
def test_logs_are_searched_for_the_very_text(sidecar, logged, text, expected):
    """% and _ mean something to LIKE; here they are what the user typed."""
    assert found(sidecar, logged, q=text) == expected


@pytest.mark.parametrize(
    ("level", "count"), [(["error"], 1), (["warn", "error"], 2), (["warn,error,debug"], 3), (["info"], 3)]
)
def test_logs_are_filtered_by_level(sidecar, logged, level, count):
    assert len(found(sidecar, logged, level=level)) == count


def test_filters_of_logs_combine(sidecar, logged):
    assert found(sidecar, logged, level="info", q="done") == ["100% done", "snakeXcase 100 done"]


def test_logs_are_paged_without_loss(sidecar, logged):
    seen: list[str] = []
    after: int | None = 0
    while after is not None:
        page = sidecar.get(f"{logged}?limit=2&after={after}").json()
        assert len(page["items"]) <= 2
        seen += [item["message"] for item in page["items"]]
        after = page["next"]
    assert seen == [message for _, message in LINES]


@pytest.mark.parametrize(
    ("query", "paths"),
    [
        ({"level": "loud"}, ["level"]),
        ({"limit": "5001"}, ["limit"]),
        ({"after": "-1"}, ["after"]),
        ({"after": str(2**63)}, ["after"]),
        ({"q": "x" * 201}, ["q"]),
        ({"q": "\x00"}, ["q"]),
        ({"format": "xml"}, ["format"]),
        ({"level": "loud", "limit": "x", "after": "y", "format": "z"}, ["after", "limit", "level", "format"]),
    ],
)
def test_bad_parameters_of_logs_are_named(sidecar, logged, query, paths):
    answer = sidecar.get(f"{logged}?{urlencode(query)}")
    assert (answer.status_code, [item["path"] for item in answer.json()["errors"]]) == (400, paths)


@pytest.mark.parametrize(
    ("accept", "query", "text"),
    [
        ("text/plain", "", True),
        ("text/*;q=0.9", "", True),
        ("*/*", "", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "", False),
        ("application/json, text/plain;q=0.5", "", False),
        ("*/*", "?format=text", True),
        ("text/plain", "?format=json", False),
    ],
)
def test_logs_are_text_for_whoever_asks(sidecar, logged, accept, query, text):
    kind = sidecar.get(f"{logged}{query}", headers={"Accept": accept}).headers["Content-Type"]
    assert kind == ("text/plain; charset=utf-8" if text else "application/json")


def test_a_download_holds_every_line_and_the_filters(sidecar, logged):
    whole = sidecar.get(f"{logged}?format=text")
    lines = whole.text.splitlines()
    assert [line.split(" ", 1)[1].split(maxsplit=1) for line in lines] == [[level, message] for level, message in LINES]
    assert whole.headers["Content-Disposition"].startswith("attachment; filename=deployment-logged.log;")
    assert len(sidecar.get(f"{logged}?format=text&level=error").text.splitlines()) == 1
    assert sidecar.get(f"{logged}?format=text&q=nowhere").text == ""


@pytest.mark.parametrize("id", ['fünf "x"/../y', "日本語", "x;y=z"])
def test_a_download_has_a_name_whatever_the_id_is(sidecar, id):
    """A header holds Latin-1 only: an id beyond it made a 500 of the download."""
    report(sidecar, type="log_entry", project="ids", deployment_id=id, message="x")
    answer = sidecar.get(f"/api/deployments/{quote(id, safe='')}/logs?format=text")
    assert answer.status_code == 200
    name = answer.headers["Content-Disposition"]
    assert re.fullmatch(r"attachment; filename=deployment[A-Za-z0-9._-]*\.log; filename\*=UTF-8''[\w.%-]+", name)
    assert unquote(name.rpartition("''")[2]) == f"deployment-{id}.log".replace("/", "-")


def test_a_download_goes_beyond_one_page(sidecar, name):
    """The server reads 5,000 lines at a time; a log is often longer."""
    for _ in range(6):
        log(sidecar, name, *[("info", f"line {number}") for number in range(1_000)])
    assert len(sidecar.get(f"/api/deployments/{name}/logs?format=text").text.splitlines()) == 6_000


# Events


def test_events_are_paged_in_order(sidecar, name):
    posted = [
        int(report(sidecar, type="log_entry", project=name, deployment_id=name, message=str(number))["event_id"])
        for number in range(7)
    ]
    seen: list[int] = []
    after: int | None = 0
    while after is not None:
        page = sidecar.get(f"/api/deployments/{name}/events?limit=3&after={after}").json()
        seen += [item["seq"] for item in page["items"]]
        after = page["next"]
    assert seen == posted


def test_an_event_is_what_browsers_get(sidecar, name):
    posted = report(sidecar, type="log_entry", project=name, deployment_id=name, message="hello")
    (item,) = sidecar.get(f"/api/deployments/{name}/events").json()["items"]
    assert set(item) == {"type", "payload", "timestamp", "seq", "epoch", "offset"}
    assert (item["type"], str(item["seq"]), item["epoch"]) == ("log_entry", posted["event_id"], posted["epoch"])
    assert item["payload"]["message"] == "hello"
    assert item["offset"].startswith(f"{item['seq']}.")


# Deliveries


def test_deliveries_are_paged_newest_first(sidecar, name):
    for number in range(3):
        report(sidecar, type="test", project=f"{name}-{number}")
    first = sidecar.get("/api/deliveries?limit=2").json()
    second = sidecar.get(f"/api/deliveries?limit=2&cursor={first['next']}").json()
    assert [item["project"] for item in first["items"] + second["items"]][:3] == [f"{name}-{n}" for n in (2, 1, 0)]


def test_a_delivery_in_quarantine_is_found_and_told_why(sidecar, name):
    answer = sidecar.post(WEBHOOK, content=f"not json {name}".encode())
    assert answer.status_code == 400
    newest = sidecar.get("/api/deliveries?verdict=quarantined&limit=1").json()["items"][0]
    assert newest["body_bytes"] == len(f"not json {name}")
    assert newest["reason"]["code"] == "unparsable"
    assert str(newest["number"]) in answer.json()["detail"]
    assert sidecar.get(f"/api/deliveries/{newest['number']}").json() == newest | {"body": f"not json {name}"}
    assert sidecar.post(f"/api/deliveries/{newest['number']}/replay").status_code == 400


def test_a_delivery_shows_who_sent_what_and_no_secret(sidecar, name):
    token = sidecar.new_token("webhooks:write")
    given = {
        "X-API-Key": token,
        "Cookie": "sid=abc",
        "X-Gitlab-Token": "plain-secret",
        "X-GitHub-Event": "push",
        "X-Note": f"mine is {token}",
        "X-Name": "d\u00e9ploy".encode(),
        "User-Agent": name,
    }
    body = json.dumps({"type": "step_started", "project": name, "deployment_id": name, "step_name": "x", "logs": token})
    headers = [(key.encode(), value if isinstance(value, bytes) else value.encode()) for key, value in given.items()]
    assert sidecar.request("POST", WEBHOOK, "", content=body.encode(), headers=dict(headers)).status_code == 200
    (listed,) = sidecar.get("/api/deliveries", params={"project": name}).json()["items"]
    shown = sidecar.get(f"/api/deliveries/{listed['number']}").json()
    assert shown["body"] == body.replace(token, "[redacted]")
    assert shown["body_sha256"] == hashlib.sha256(body.encode()).hexdigest()
    kept = {key.lower(): value for key, value in shown["headers"].items()}
    assert {key: kept[key] for key in ("x-api-key", "cookie", "x-gitlab-token")} == dict.fromkeys(
        ("x-api-key", "cookie", "x-gitlab-token"), "[redacted]"
    )
    assert (kept["x-github-event"], kept["x-note"]) == ("push", "mine is [redacted]")
    assert sidecar.post(f"/api/deliveries/{listed['number']}/replay").status_code == 200, "of the body as it came"


def test_deliveries_are_found_by_project_time_and_several_verdicts(sidecar, name):
    report(sidecar, type="test", project=name)
    report(sidecar, type="deployment_started", project=name, deployment_id=name)
    (second, first) = sidecar.get("/api/deliveries", params={"project": name}).json()["items"]

    def found(**query: str) -> list[int]:
        answer = sidecar.get("/api/deliveries", params={"project": name} | query)
        return [item["number"] for item in answer.json()["items"]]

    assert found(verdict="test") == [first["number"]]
    assert found(verdict="test,stored") == [second["number"], first["number"]]
    assert found(since=second["received_at"], verdict="stored") == [second["number"]]
    assert found(until=first["received_at"]) == []
    assert sidecar.get("/api/deliveries", params={"project": f"{name}-other"}).json()["items"] == []


def test_deliveries_are_counted_by_verdict(sidecar, name):
    start = utc_text(time.time())
    for _ in range(2):
        report(sidecar, type="test", project=name)
    sidecar.post(WEBHOOK, content=b"not json")
    report(sidecar, type="deployment_started", project=name, deployment_id=name)
    answer = sidecar.get("/api/deliveries/counts", params={"since": start}).json()
    assert answer["since"] == start
    assert {verdict: count for verdict, count in answer["counts"].items() if count} == {
        "test": 2,
        "quarantined": 1,
        "stored": 1,
    }
    assert sidecar.get("/api/deliveries/counts").json()["counts"]["test"] >= 2, "of a day"
    assert set(sidecar.get("/api/deliveries/counts?since=2100-01-01").json()["counts"].values()) == {0}
    assert sidecar.get("/api/deliveries/counts?since=then").status_code == 400
    assert sidecar.get("/api/deliveries/counts", sidecar.new_token("deployments:read")).status_code == 403


@pytest.mark.parametrize("query", ["verdict=lost", "limit=101", "cursor=x", "since=yesterday", "project=", "projekt=x"])
def test_bad_parameters_of_deliveries_are_named(sidecar, query):
    answer = sidecar.get(f"/api/deliveries?{query}")
    assert (answer.status_code, [item["path"] for item in answer.json()["errors"]]) == (400, [query.partition("=")[0]])
