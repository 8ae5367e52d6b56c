"""Signatures of bodies: GitHub's published vector, and headers that no sender writes."""

from __future__ import annotations

import pytest

from sidecar.domain.errors import SignatureMismatch
from sidecar.wire.signatures import read_signature, signed_with

SECRET, BODY = b"It's a Secret to Everybody", b"Hello, World!"
DIGEST = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


@pytest.mark.parametrize("written", [DIGEST, DIGEST.upper()])
def test_the_vector_of_githubs_documentation(written):
    assert signed_with(SECRET, BODY, read_signature(f"sha256={written}"))


@pytest.mark.parametrize(
    ("secret", "body"), [(SECRET, BODY + b"\n"), (SECRET, b""), (SECRET + b"!", BODY), (b"", BODY), (SECRET, b"\xff")]
)
def test_another_body_or_secret_does_not_fit(secret, body):
    assert not signed_with(secret, body, bytes.fromhex(DIGEST))


@pytest.mark.parametrize(
    "header",
    [
        "",
        "sha256=",
        DIGEST,
        f"sha1={DIGEST[:40]}",
        f"sha256={DIGEST[:-1]}",
        f"sha256={DIGEST}0",
        f"sha256={DIGEST}\n",
        f" sha256={DIGEST}",
        f"sha256={DIGEST},sha256={DIGEST}",
        f"sha256={DIGEST[:-1]}g",
        f"sha256={DIGEST[:-1]}é",
        "sha256=" + "٣" * 64,
        f"sha512={DIGEST * 2}",
    ],
)
def test_headers_that_no_sender_writes(header):
    with pytest.raises(SignatureMismatch, match="64 hexadecimal digits"):
        read_signature(header)
