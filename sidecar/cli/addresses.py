"""Where a sidecar is reached."""

from __future__ import annotations

from config.settings import Settings


def public_url(settings: Settings, port: int) -> str:
    """The address that people are told."""
    return f"{settings.public_url}{settings.prefix}" if settings.public_url else local_url(settings, port)


def local_url(settings: Settings, port: int) -> str:
    """The address on this host: the wildcard addresses are reached through loopback."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    named = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{settings.scheme}://{named}:{port}{settings.prefix}"
