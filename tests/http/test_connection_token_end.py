"""What the answer to POST /api/tokens/connection says of the token's life."""

from __future__ import annotations


def test_a_connection_token_is_not_said_to_outlive_its_issuer(sidecar):
    """A page that plans its refresh by `expires_at` would be cut off before."""
    issuer = sidecar.post("/api/tokens", {"name": "short", "scopes": ["tokens:issue"], "ttl_seconds": 60}).json()
    answer = sidecar.post("/api/tokens/connection", {"ttl_seconds": 300}, token=issuer["token"]).json()
    assert 0 < answer["ttl_seconds"] <= 60
    assert answer["expires_at"] <= issuer["expires_at"]


def test_a_connection_token_lives_as_long_as_was_asked(sidecar):
    assert sidecar.post("/api/tokens/connection", {"ttl_seconds": 300}).json()["ttl_seconds"] == 300
