"""The core of an installation, on which every part stands: its store, the road of events to the hub, and its tokens.
The command line needs no more; the whole sidecar is built on it (factory.py)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent
import structlog
from cryptography.fernet import Fernet
from flask import Flask
from redis import Redis
from sqlalchemy import Connection

from config.settings import ROOT, Settings
from sidecar.domain.access import Identity
from sidecar.domain.authorizations import App
from sidecar.domain.errors import Conflict, Unavailable
from sidecar.domain.events import Event, Volatile
from sidecar.fanout.catchup import PAGE_BYTES, CatchUp
from sidecar.fanout.datagrams import Datagrams
from sidecar.fanout.doorbells import Batch, Doorbell
from sidecar.fanout.hub import Hub
from sidecar.fanout.notices import Notices
from sidecar.fanout.redis_bell import RedisBell
from sidecar.fanout.tail import Tail
from sidecar.observability.metrics import Metrics
from sidecar.services.connections import Connections
from sidecar.services.keys import Keys, load_keys
from sidecar.services.lark_apps import Apps
from sidecar.services.maim_keys import BotKeys
from sidecar.services.redis_list import POSTER as LIST_POSTER
from sidecar.services.resealing import Resealed, reseal_all
from sidecar.services.tokens import REVOKED, Tokens
from sidecar.services.users import Users
from sidecar.services.vault import Vault
from sidecar.services.webhook_secrets import CHANGED as SECRETS_CHANGED
from sidecar.services.webhook_secrets import MARK, WebhookSecrets
from sidecar.store.database import Database, open_database
from sidecar.store.journal import found_journal, read_head, same_secret
from sidecar.store.nodes import remove_node
from sidecar.store.postgres import Postgres
from sidecar.store.redis import open_redis
from sidecar.store.writer import Writer

log = structlog.get_logger("sidecar.core")

ADMIN_TOKEN_FILE = "admin-token"  # noqa: S105 - a file's name
WEBHOOK_TOKEN_FILE = "webhook-token"  # noqa: S105 - a file's name
"""In the instance folder, written at the first start, readable by the owner alone."""

Control = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Core:
    """An installation without edges: what serves requests and sockets is built on it, and calls it."""

    app: Flask
    database: Database
    writer: Writer
    tail: Tail
    hub: Hub
    catchup: CatchUp
    metrics: Metrics
    tokens: Tokens
    connections: Connections
    users: Users
    webhook_secrets: WebhookSecrets
    bot_keys: BotKeys
    apps: Apps
    vault: Vault
    keys: Keys
    redis: Redis | None
    """A client of the Redis of the settings, which may be away at any time."""
    redis_bell: RedisBell | None
    bells: tuple[Doorbell, ...]
    """The widest road first."""
    node: str
    """Names this process to the others, and is another at each start."""
    controls: dict[str, list[Control]]
    """What each type of control event does to this process (`on_control`)."""
    gaps: list[Callable[[], None]]
    """What is to be done when events are gone from the journal before they passed the tail."""

    def on_control(self, type: str, act: Control) -> None:
        """`act` is called with the payload of each control event of this type, as it passes this process's tail. It
        must not block."""
        self.controls.setdefault(type, []).append(act)

    def publish_volatile(self, news: Volatile) -> None:
        """To the subscribers of this process, and of the others that hear our doorbells: by one road, so that none gets
        it twice."""
        self.hub.publish_volatile(news)
        any(bell.tell(news) for bell in self.bells)

    def poster(self, id: str) -> Identity:
        """Who posted a delivery, as its `token_id` says. Raises Unauthenticated when that token or webhook secret is
        gone or revoked."""
        if id == LIST_POSTER.token_id:
            return LIST_POSTER
        return (self.webhook_secrets if id.startswith(MARK) else self.tokens).holder(id)

    def reseal(self) -> Resealed:
        """Encrypt what is stored of authorizations anew, with the first key."""
        return reseal_all(self.database, self.writer.run_alone, self.vault)

    def start(self) -> None:
        """From now on commands are committed, and events reach the hub."""
        self.writer.start()
        self.tail.start()
        for bell in self.bells:
            bell.start(self.tail, self.hub.publish_volatile)

    def close(self) -> None:
        """Commit what waits, then end."""
        self.writer.stop()
        self.tail.stop()
        for bell in self.bells:
            bell.stop()
        if self.redis is not None:
            self.redis.close()
        self.database.close()


WRITTEN_BY_ANOTHER = (
    "This database was written with another secret key. All hosts need the same one: SIDECAR_SECRET_KEY, or a copy of "
    "the file secret_key of the first host's instance folder. If it was changed on purpose: python -m sidecar db "
    "adopt-secret (keys of bots, webhook secrets and tokens of users made under the old one are lost)."
)


def open_core(settings: Settings, running: bool = False, adopt_secret: bool = False) -> Core:
    """The store and the tokens of an installation, made or upgraded if need be. With `running` the commands go
    through the writer's greenlet (after `writer.start`), otherwise each is committed at once by the caller. Raises
    Unavailable for a database that can't be used, and Conflict for one written with another master secret, unless
    that one is to be adopted."""
    app = Flask("sidecar", static_folder=None, template_folder=str(ROOT / "sidecar" / "web" / "templates"))
    instance = settings.instance_path
    database = open_database(app, settings.resolved_database_url, instance)
    keys = load_keys(instance, settings.secret_key.get_secret_value() if settings.secret_key else None)

    def found(connection: Connection) -> None:
        found_journal(connection)
        if not same_secret(connection, keys.fingerprint, adopt_secret):
            raise Conflict(WRITTEN_BY_ANOTHER)

    database.upgrade(found)
    metrics = Metrics()
    controls: dict[str, list[Control]] = {}

    def publish(event: Event) -> None:
        if event.control:
            for act in controls.get(event.type, ()):
                act(json.loads(event.payload))
        else:
            hub.publish(event)
            metrics.events.inc()

    gaps: list[Callable[[], None]] = []

    def missed() -> None:
        for act in gaps:
            act()

    bells: list[Doorbell] = []
    tail = Tail(database, publish, missed, lambda: any(bell.carries for bell in bells))
    catchup = CatchUp(database, tail, min(PAGE_BYTES, settings.outbox_bytes // 4))
    hub = Hub(catchup.congested)
    gaps.append(hub.cut_off_all)
    node = secrets.token_hex(8)

    def forget(dead: str) -> None:
        try:
            writer.submit(lambda transaction: remove_node(transaction.connection, dead))
        except Unavailable as error:
            log.warning("core.dead_node_stays", problem=error.detail)

    def died(dead: str) -> None:
        if running:
            gevent.spawn(forget, dead).name = "dead-node"

    redis = open_redis(settings.redis_url.get_secret_value()) if settings.redis_url else None
    epoch = database.read(read_head).epoch
    redis_bell = RedisBell(redis, node, epoch, keys.derive("redis-doorbell")) if redis else None
    if redis_bell is not None:
        bells.append(redis_bell)
    bells.append(Datagrams(instance, node, epoch, died))
    if isinstance(database.backend, Postgres):
        bells.append(Notices(database.engine, database.backend))

    def committed(events: list[Event]) -> None:
        if running:
            tail.offer(events)
        batch = Batch(events)
        for bell in bells:
            bell.ring(batch)

    writer = Writer(database, committed)
    submit = writer.submit if running else writer.run_alone

    def fresh() -> bool:
        return tail.fresh

    tokens = Tokens(database, submit, fresh=fresh)
    webhook_secrets = WebhookSecrets(database, submit, keys.seal("webhook-secrets"), fresh=fresh)
    vault = Vault([*map(Fernet, settings.lark_fernet_keys), keys.seal("lark")])
    core = Core(
        app,
        database,
        writer,
        tail,
        hub,
        catchup,
        metrics,
        tokens,
        Connections(keys, tokens, submit),
        Users(submit),
        webhook_secrets,
        BotKeys(database, submit, keys.derive("maim-keys"), fresh=fresh),
        Apps(database, submit, vault, _first_app(settings)),
        vault,
        keys,
        redis,
        redis_bell,
        tuple(bells),
        node,
        controls,
        gaps,
    )
    core.on_control(REVOKED, lambda body: tokens.forget(body["id"]))
    core.on_control(SECRETS_CHANGED, lambda _body: webhook_secrets.forget())
    return core


def _first_app(settings: Settings) -> App | None:
    """The app of the settings."""
    if settings.lark_app_id is None or settings.lark_app_secret is None:
        return None
    token, key = settings.lark_verification_token, settings.lark_encrypt_key
    return App(
        settings.lark_app_id,
        settings.lark_app_secret.get_secret_value(),
        token.get_secret_value() if token else "",
        key.get_secret_value() if key else "",
    )
