"""Tokens, the signed tokens that rest on them, and the moment they end; on a real database, with a clock of ours."""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Callable
from typing import TypeVar

import pytest
from sqlalchemy import Connection

from sidecar.domain.errors import Invalid, NotAllowed, NotFound, TokenExpired, Unauthenticated
from sidecar.services.access import Access, require
from sidecar.services.connections import COOKIE_SECONDS, LOGIN_LINK_SECONDS, Connections
from sidecar.services.keys import FILE, Keys, load_keys
from sidecar.services.tokens import CACHE_SECONDS, MAX_PROJECTS, Tokens
from sidecar.store.database import Database

T = TypeVar("T")


@pytest.fixture
def tokens(core, clock) -> Tokens:
    return Tokens(core.database, core.writer.run_alone, clock)


@pytest.fixture
def connections(core, clock, tokens) -> Connections:
    return Connections(Keys(b"a master secret of a test"), tokens, core.writer.run_alone, clock)


def test_a_token_is_what_it_was_made(tokens, clock):
    made = tokens.create("ci", ["webhooks:write", "webhooks:write"], ["b", " a "], 60)
    identity = tokens.verify(made.text)
    assert (identity.kind, identity.name, identity.token_id) == ("token", "ci", made.id)
    assert identity.scopes == {"webhooks:write"}
    assert identity.projects == ("b", "a")
    assert identity.expires_at == clock.now + 60


def test_no_secret_is_stored(tokens, core, tmp_path):
    made = tokens.create("ci", ["admin"])
    secret = made.text.split("_", 2)[2]
    for row in tokens.list():
        assert secret.encode() not in row.secret_hash
    stored = b"".join(path.read_bytes() for path in (tmp_path / "instance").iterdir())
    assert secret.encode() not in stored
    assert b"ci" in stored


@pytest.mark.parametrize(
    ("arguments", "paths"),
    [
        (("", ["admin"]), ["name"]),
        ((None, ["admin"]), ["name"]),
        (("x" * 201, ["admin"]), ["name"]),
        (("x", []), ["scopes"]),
        (("x", ["admin", "fly"]), ["scopes"]),
        (("x", [[]]), ["scopes"]),
        (("x", ["admin"], []), ["projects"]),
        (("x", ["admin"], ["p"] * (MAX_PROJECTS + 1)), ["projects"]),
        (("x", ["admin"], ["ok", "", 7, None]), ["projects[1]", "projects[3]"]),
        (("x", ["admin"], None, 0), ["ttl_seconds"]),
        (("x", ["admin"], None, 4e9), ["ttl_seconds"]),
        ((None, ["fly"], [], -1), ["name", "scopes", "projects", "ttl_seconds"]),
    ],
)
def test_a_token_that_can_not_be_made_so(tokens, arguments, paths):
    with pytest.raises(Invalid) as caught:
        tokens.create(*arguments)
    assert [field.path for field in caught.value.fields] == paths
    assert tokens.list() == []


def test_a_token_ends_by_the_clock_also_in_the_cache(tokens, clock):
    made = tokens.create("short", ["admin"], None, 10)
    tokens.verify(made.text)
    clock.now += 9.999
    tokens.verify(made.text)
    clock.now += 0.001
    with pytest.raises(TokenExpired):
        tokens.verify(made.text)


def test_a_revoked_token_is_forgotten_when_the_news_comes(tokens):
    made = tokens.create("x", ["admin"])
    tokens.verify(made.text)
    tokens.holder(made.id)
    tokens.revoke(made.id)
    tokens.forget(made.id)
    with pytest.raises(Unauthenticated, match="revoked"):
        tokens.verify(made.text)
    with pytest.raises(Unauthenticated, match="revoked"):
        tokens.holder(made.id)
    with pytest.raises(NotFound):
        tokens.revoke(made.id)


def test_without_the_news_the_cache_ends_by_itself(tokens, clock):
    made = tokens.create("x", ["admin"])
    tokens.verify(made.text)
    tokens.revoke(made.id)
    clock.now += CACHE_SECONDS
    with pytest.raises(Unauthenticated):
        tokens.verify(made.text)


def test_what_is_remembered_counts_only_while_the_news_would_have_come(core, clock):
    """After the process stood still, or while it can't read the journal, a token may be revoked and nobody knows."""
    fresh = True
    tokens = Tokens(core.database, core.writer.run_alone, clock, lambda: fresh)
    made = tokens.create("x", ["admin"])
    tokens.verify(made.text)
    tokens.holder(made.id)
    tokens.revoke(made.id)
    tokens.verify(made.text)
    tokens.holder(made.id)
    fresh = False
    with pytest.raises(Unauthenticated, match="revoked"):
        tokens.verify(made.text)
    with pytest.raises(Unauthenticated, match="revoked"):
        tokens.holder(made.id)


class Interleaved:
    """The database, whose every read is followed by `then` before its reader goes on: as another greenlet may."""

    def __init__(self, database: Database):
        self._database = database
        self.then: Callable[[], None] = lambda: None

    def read(self, query: Callable[[Connection], T]) -> T:
        found = self._database.read(query)
        then, self.then = self.then, lambda: None
        then()
        return found


@pytest.mark.parametrize("by", ["verify", "holder"])
def test_a_token_revoked_while_it_is_being_read_is_not_remembered(core, clock, by):
    """The news of a revocation may pass between the read and the caching; the old answer must not then stay valid
    for another half minute."""
    database = Interleaved(core.database)
    tokens = Tokens(database, core.writer.run_alone, clock)
    made = tokens.create("x", ["admin"])

    def look() -> None:
        if by == "verify":
            tokens.verify(made.text)
        else:
            tokens.holder(made.id)

    def revoke() -> None:
        tokens.revoke(made.id)
        tokens.forget(made.id)

    database.then = revoke
    look()
    with pytest.raises(Unauthenticated, match="revoked"):
        look()


def test_a_connection_token_ends_with_its_issuer(tokens, connections, clock):
    issuer = tokens.create("back end", ["tokens:issue", "deployments:read"], None, 100)
    issued = connections.issue(tokens.verify(issuer.text), sub="anna", ttl_seconds=3_600)
    identity = connections.identify(issued.text)
    assert (identity.user, identity.name, identity.expires_at) == ("anna", "anna", clock.now + 100)
    clock.now += 100
    with pytest.raises(TokenExpired):
        connections.identify(issued.text)


def test_a_revoked_issuer_ends_what_it_issued(tokens, connections):
    issuer = tokens.create("back end", ["tokens:issue", "deployments:read"])
    issued = connections.issue(tokens.verify(issuer.text))
    tokens.revoke(issuer.id)
    with pytest.raises(Unauthenticated):
        connections.identify(issued.text)


def test_only_an_issuer_issues(tokens, connections):
    with pytest.raises(NotAllowed):
        connections.issue(tokens.verify(tokens.create("x", ["deployments:read"]).text))


@pytest.mark.parametrize(("ttl", "held"), [(1, True), (300, True), (301, False)])
def test_only_a_short_token_may_stand_in_a_url(tokens, connections, ttl, held):
    issuer = tokens.verify(tokens.create("x", ["admin"]).text)
    text = connections.issue(issuer, ttl_seconds=ttl).text
    if held:
        assert connections.identify(text, in_url=True).kind == "connection"
    else:
        with pytest.raises(Unauthenticated, match="five minutes"):
            connections.identify(text, in_url=True)


def test_an_api_token_may_not_stand_in_a_url(tokens, connections):
    with pytest.raises(Unauthenticated, match="URL"):
        connections.identify(tokens.create("x", ["admin"]).text, in_url=True)


def test_a_signed_token_of_another_installation_is_nobody(core, tokens, connections, clock):
    others = Connections(Keys(b"another master secret"), tokens, core.writer.run_alone, clock)
    issuer = tokens.verify(tokens.create("x", ["admin"]).text)
    with pytest.raises(Unauthenticated):
        connections.identify(others.issue(issuer).text)


def test_a_login_link_expires(core, tokens, connections, clock):
    made = tokens.create("x", ["admin"])
    late = connections.login_link(made.id)
    # The journal's own clock decides when a link is spent; an old link is one made that long ago.
    clock.now = 0
    old = connections.login_link(made.id)
    clock.now = 1_800_000_000.0
    assert connections.spend_login_link(late)
    with pytest.raises(NotFound):
        connections.spend_login_link(old)
    assert LOGIN_LINK_SECONDS == 900


def test_a_login_ends_after_a_week_or_with_its_token(tokens, connections, clock):
    forever = tokens.create("x", ["admin"])
    cookie = connections.spend_login_link(connections.login_link(forever.id))
    assert connections.cookie_identity(cookie).expires_at == clock.now + COOKIE_SECONDS
    clock.now += COOKIE_SECONDS
    with pytest.raises(TokenExpired):
        connections.cookie_identity(cookie)
    short = tokens.create("y", ["admin"], None, 60)
    cookie = connections.spend_login_link(connections.login_link(short.id))
    assert connections.cookie_identity(cookie).expires_at == clock.now + 60, "a live socket must not outlive the token"


def test_csrf_holds_for_its_own_cookie_only(connections):
    assert connections.csrf_holds("cookie", connections.csrf_token("cookie"))
    for given in ("", "x", "é", connections.csrf_token("another")):
        assert not connections.csrf_holds("cookie", given)


@pytest.mark.parametrize(
    ("open", "anonymous_read", "networks", "address", "scopes"),
    [
        ("false", False, "", "203.0.113.5", set()),
        ("true", False, "", "203.0.113.5", {"webhooks:write", "deployments:read"}),
        ("webhooks", False, "", "203.0.113.5", {"webhooks:write"}),
        ("webhooks", False, "203.0.113.0/24", "203.0.113.5", {"webhooks:write"}),
        ("webhooks", False, "203.0.113.0/24", "198.51.100.1", set()),
        ("webhooks", False, "203.0.113.0/24", "", set()),
        ("webhooks", False, "203.0.113.0/24", "nonsense", set()),
        ("true", False, "203.0.113.0/24", "198.51.100.1", {"deployments:read"}),
        ("false", True, "", "203.0.113.5", {"deployments:read", "rooms:read"}),
    ],
)
def test_what_a_stranger_may(core, open, anonymous_read, networks, address, scopes):
    parsed = tuple(ipaddress.ip_network(network) for network in networks.split(",") if network)
    found = Access(core.connections, core.webhook_secrets, open, anonymous_read, parsed, None).stranger(address)
    assert (found.scopes, found.authenticated) == (scopes, False)
    with pytest.raises(Unauthenticated):
        require(found, "admin")


def test_keys_are_made_once_and_differ_by_purpose(tmp_path):
    first, again = load_keys(tmp_path / "new", None), load_keys(tmp_path / "new", None)
    assert first.derive("a") == again.derive("a") != first.derive("b")
    assert len(first.derive("a")) == 32
    assert stat.S_IMODE((tmp_path / "new" / FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_a_configured_secret_makes_no_file(tmp_path):
    configured = load_keys(tmp_path / "new", "a configured secret")
    assert not (tmp_path / "new").exists()
    assert configured.derive("a") == Keys(b"a configured secret").derive("a")
