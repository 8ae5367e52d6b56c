"""A running sidecar and the platform beside it, and what back ends and users do with both."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import httpx
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from examples.fake_lark import FakeLark, Message
from tests.lark.stage import APP_ID, APP_SECRET, ENCRYPT_KEY, HTTP, VERIFICATION_TOKEN, console, query_of
from tests.programs import free_port, wait_until
from tests.servers import RunningSidecar

Json = dict[str, Any]
SCOPES = "offline_access contact:user.email:readonly contact:user.phone:readonly"
PAST = "2026-01-01T00:00:00.000Z"
TOKEN_COLUMNS = ("user_access_token", "refresh_token", "token_expires_at", "open_id", "user_name", "email", "mobile")


class Flow:
    """Users of the application have any name, those of the platform are ou_ada, ou_bob and ou_eve."""

    def __init__(self, folder: Path, **environment: str):
        # Generous where a busy machine would make a test fail that is about something else.
        self.lark = FakeLark(console(messages_a_second=1000, answer_seconds=10))
        port = free_port()
        settings = {
            "SIDECAR_PORT": str(port),
            "SIDECAR_RATE_LIMIT": "off",
            "SIDECAR_LOG_LEVEL": "debug",
            "SIDECAR_LARK_APP_ID": APP_ID,
            "SIDECAR_LARK_APP_SECRET": APP_SECRET,
            "SIDECAR_LARK_VERIFICATION_TOKEN": VERIFICATION_TOKEN,
            "SIDECAR_LARK_ENCRYPT_KEY": ENCRYPT_KEY,
            "SIDECAR_LARK_API_URL": self.lark.url,
            "SIDECAR_LARK_SCOPES": SCOPES,
            "SIDECAR_LARK_TIMEOUT_SECONDS": "3",
            "SIDECAR_LARK_REDIRECT_URI": f"http://127.0.0.1:{port}/callback",
        }
        self._settings = settings | environment
        self.server = RunningSidecar(folder, self._settings)
        database = environment.get("SIDECAR_DATABASE_URL", f"sqlite:///{self.server.instance / 'sidecar.db'}")
        self._engine = create_engine(database.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)
        self.states: list[str] = []
        self.others: list[Path] = []
        """Output of other processes, in which nothing secret may stand either."""

    def __enter__(self) -> Self:
        self.lark.__enter__()
        try:
            self.server.start()
        except BaseException:
            self.lark.close()
            raise
        self.lark.console.redirect_uris = [f"{self.server.url}/callback"]
        self.lark.console.callback_url = f"{self.server.url}/callback/lark"
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.server.stop()
        finally:
            self.lark.close()

    def another(self, folder: Path) -> RunningSidecar:
        """Another process of the same installation, not started yet."""
        settings = self._settings | {"SIDECAR_PORT": str(free_port())}
        return RunningSidecar(folder, settings, self.server.instance)

    # The back end

    def start(self, user: str, **more: Any) -> Json:
        answer = self.server.post("/api/authorizations", {"user": user, **more})
        assert answer.status_code == 200, answer.text
        begun: Json = answer.json()
        self.states.append(query_of(begun["authorize_url"])["state"])
        return begun

    def session(self, begun: Json) -> Json:
        answer = self.server.get(f"/api/authorizations/{begun['session_id']}")
        assert answer.status_code == 200, answer.text
        told: Json = answer.json()
        return told

    def state(self, begun: Json) -> tuple[str, str | None]:
        told = self.session(begun)
        return told["state"], told["reason"]

    def send_card(self, begun: Json, **body: Any) -> Message:
        answer = self.server.post(f"/api/authorizations/{begun['session_id']}/card", body)
        assert answer.status_code == 200, answer.text
        return self.lark.platform.messages[answer.json()["message_id"]]

    def token(self, user: str) -> httpx.Response:
        return self.server.get(f"/api/authorizations/{APP_ID}/{user}/token")

    # The user

    def consent(self, begun: Json, open_id: str = "ou_ada", allow: bool = True) -> str:
        """Where the platform sends the user's browser."""
        done = self.lark.grant_now(begun["authorize_url"], open_id, allow)
        location: str = done["location"]
        return location

    def come_back(self, location: str, at: RunningSidecar | None = None, **more: str) -> httpx.Response:
        """The user's browser arrives at the sidecar (or another process of it), without any cookie or token; `more`
        changes the query."""
        query = {name: value for name, value in (query_of(location) | more).items() if value}
        return HTTP.get(f"{(at or self.server).url}{urlsplit(location).path}?{urlencode(query)}")

    def authorize(self, begun: Json, open_id: str = "ou_ada") -> httpx.Response:
        return self.come_back(self.consent(begun, open_id))

    def authorized(self, user: str, open_id: str = "ou_ada", **more: Any) -> Json:
        begun = self.start(user, **more)
        answer = self.authorize(begun, open_id)
        assert answer.status_code == 200, answer.text
        return begun

    def wait_card(self, message: Message, title: str) -> None:
        """Until the card shows this."""
        wait_until(lambda: title_of(message.versions[-1]) == title, f"the card shows {title}")

    # What must not be

    def row(self, begun: Json) -> Json:
        """The session as it stands in the database."""
        with self._engine.connect() as connection:
            query = text("SELECT * FROM user_auth_sessions WHERE session_id = :session_id")
            return dict(connection.execute(query, {"session_id": begun["session_id"]}).one()._mapping)

    def change(self, begun: Json, **columns: str) -> None:
        """Have time pass for a session, by what the database says."""
        places = ", ".join(f"{name} = :{name}" for name in columns)
        query = f"UPDATE user_auth_sessions SET {places} WHERE session_id = :session_id"
        self.execute(query, **columns, session_id=begun["session_id"])

    def execute(self, query: str, **values: str) -> int:
        """Change the database; how many rows."""
        with self._engine.begin() as connection:
            return connection.execute(text(query), values).rowcount

    def forget_lease(self) -> None:
        """As if the time of a process that ran before were over, which looked after authorizations."""
        self.execute("DELETE FROM leases WHERE name = 'authorizations'")

    def nothing_stored(self, begun: Json) -> bool:
        """Of whoever tried to authorize."""
        row = self.row(begun)
        return all(row[name] is None for name in TOKEN_COLUMNS)

    def secrets(self) -> list[str]:
        platform = self.lark.platform
        found = [APP_SECRET, ENCRYPT_KEY, VERIFICATION_TOKEN, *self.states, *platform.codes, *platform.app_tokens]
        found += self.lark.connections.issued
        for grant in platform.grants:
            found += [grant.access, grant.refresh or grant.access]
        return found

    def check_nothing_told(self, *others: RunningSidecar) -> None:
        """Neither in the output of the sidecar and of the other processes, nor in clear text in its folder."""
        output = self.server.output() + "".join(path.read_text(errors="replace") for path in self.others)
        output += "".join(other.output() for other in others)
        assert "authorizations.begun" in output or not self.states, "there is a log"
        assert [secret for secret in self.secrets() if secret in output] == []
        assert "Traceback" not in output, output
        kept = [path.read_bytes() for path in self.server.instance.rglob("*") if path.is_file()]
        told = [secret for secret in self.secrets() if any(secret.encode() in content for content in kept)]
        assert told == []


def title_of(card: Json) -> str:
    title: str = card["header"]["title"]["content"]
    return title


def heading(page: httpx.Response) -> str:
    """The h1 of a page."""
    return page.text.partition("<h1")[2].partition(">")[2].partition("</h1>")[0].strip()


def ended(flow: Flow, begun: Json) -> None:
    """Wait until a short-lived token has ended; those that are given now live longer."""
    flow.lark.console.access_seconds = 7200
    ends = flow.row(begun)["token_expires_at"]
    wait_until(lambda: time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) > ends[:19], "the token has ended")
