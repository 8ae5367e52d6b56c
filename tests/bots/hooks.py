"""Hooks for the sidecar of these tests (SIDECAR_MAIM_HOOKS): what the application before the real servers did."""

from __future__ import annotations

from typing import Any


class Echo:
    """Answers each custom_notification with a custom_reply, to the connection that sent it alone."""

    def use(self, server: Any) -> None:
        def on_notification(frame: dict[str, Any], metadata: dict[str, Any]) -> None:
            server.send_custom_message("custom_reply", {"echo": frame["payload"]}, connection_uuid=metadata["uuid"])

        server.register_custom_handler("notification", on_notification)


echo = Echo()
