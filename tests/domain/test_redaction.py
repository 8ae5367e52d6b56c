"""What looks like a secret never reaches the store or a browser; everything else is left as it is."""

from __future__ import annotations

import pytest

from sidecar.domain.redaction import MARK, redact, redact_tree
from tests.alarms import alarm

# Joined from parts so that scanners for leaked secrets don't take the test for a leak.
A36 = "aB3" * 12
JWT = ".".join(("eyJ" + "hbGciOiJIUzI1", "eyJ" + "zdWIiOiIxMjM0", "dozjgNryP4J3jVm"))
PEM = "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEow\nabc/+=\n-----END RSA " + "PRIVATE KEY-----"
SEALED_PEM = (
    "-----BEGIN RSA " + "PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0A\n\nMIIEow-b\n"
    "-----END RSA " + "PRIVATE KEY-----"
)


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        pytest.param(f"token sct_0123456789ab_{A36} used", f"token {MARK} used", id="our-own"),
        pytest.param(f"key smk_{A36}.", f"key {MARK}.", id="a-bot's"),
        *(pytest.param(f"got {kind}_{A36}.", f"got {MARK}.", id=kind) for kind in ("ghp", "gho", "ghu", "ghs", "ghr")),
        pytest.param(f"github_pat_{A36}_x", MARK, id="github-fine-grained"),
        pytest.param(f"glpat-{A36}", MARK, id="gitlab"),
        *(pytest.param(f"xox{kind}-123-{A36}", MARK, id=f"slack-xox{kind}") for kind in "abeoprs"),
        pytest.param("key AKIA" + "ABCDEFGH12345678 end", f"key {MARK} end", id="aws"),
        pytest.param("key ASIA" + "ABCDEFGH12345678", f"key {MARK}", id="aws-temporary"),
        pytest.param(f"jwt={JWT}", f"jwt={MARK}", id="jwt"),
        pytest.param(f"Bearer x{JWT}!", f"Bearer x{MARK}!", id="jwt-after-letters"),
        pytest.param(f"a {PEM} b", f"a {MARK} b", id="private-key"),
        pytest.param(f"a {SEALED_PEM} b", f"a {MARK} b", id="encrypted-private-key"),
        pytest.param(PEM.partition("-----END")[0], MARK, id="private-key-without-end"),
        pytest.param("> Authorization: Bearer abc.def-123", f"> Authorization: Bearer {MARK}", id="header"),
        pytest.param("authorization=token   abcdef123", f"authorization=token   {MARK}", id="header-equals"),
        pytest.param('"Authorization": "Basic dXNlcjpwdw=="', f'"Authorization": "Basic {MARK}"', id="header-in-json"),
        pytest.param("AUTHORIZATION: BEARER abcdef123", f"AUTHORIZATION: BEARER {MARK}", id="header-in-capitals"),
        pytest.param("/x?a=1&Token=abc", f"/x?a=1&Token={MARK}", id="parameter-with-a-capital"),
        pytest.param("GET /x?token=abc&a=1", f"GET /x?token={MARK}&a=1", id="parameter"),
        pytest.param("/x?a=1&API_KEY=s3cret#top", f"/x?a=1&API_KEY={MARK}#top", id="parameter-in-capitals"),
        pytest.param("/x?access_token=abc apikey", f"/x?access_token={MARK} apikey", id="access-token"),
        pytest.param("https://me:pw@example.com/x", f"https://me:{MARK}@example.com/x", id="password-in-url"),
        pytest.param("redis://:pw@cache:6379", f"redis://:{MARK}@cache:6379", id="password-without-user"),
        pytest.param(f"two ghp_{A36} and ghs_{A36}", f"two {MARK} and {MARK}", id="several"),
    ],
)
def test_secrets_are_cut_out(text, redacted):
    assert redact(text) == redacted
    assert redact(redacted) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "step build finished in 12 s",
        "部署成功 ✅ émoji 👨‍👩‍👧",
        "https://example.com:8443/path?q=1&tokens=3",
        "mail me@example.com, see https://example.com/@user",
        "eyJ is how a JWT begins, and eyJhbGciOiJIUzI1NiJ9 is only a part of one",
        "AKIA, ASIA and ghp_ are prefixes; so is sct_0123456789ab_short",
        "authorization: needed; Authorization header missing",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "git clone git@github.com:owner/repo.git",
        "12:30:01://not-a-url",
    ],
)
def test_ordinary_text_stays_as_it_is(text):
    assert redact(text) == text


@pytest.mark.parametrize(
    "unit",
    [
        "eyJ",
        "eyJa-",
        "eyJaaaaaaaa.",
        "-----BEGIN " + "PRIVATE KEY-----",
        "-----BEGIN " + "PRIVATE KEY----- -",
        "://",
        "a://a:",
        "aa://u:p",
        "a+.",
        "authorization: bearer ",
        "&access_token=",
        "ghp_aaaaaaaaaaaaaaaaaaa",
        "xoxb-",
        "sct_000000000000_",
    ],
)
def test_a_hostile_megabyte_is_read_once(unit):
    """Protects the event loop: a megabyte of `eyJ` used to be scanned to its end again from each of its words."""
    text = (unit * (2**20 // len(unit)))[: 2**20]
    with alarm():
        redact(text + " authorization ://")


def test_text_is_found_however_deep_it_stands():
    token = f"ghp_{A36}"
    assert redact_tree({"a": [token, {"b": token}], "n": 1, "t": True, "z": None}) == {
        "a": [MARK, {"b": MARK}],
        "n": 1,
        "t": True,
        "z": None,
    }
