"""Puts the parts together: settings in, a Flask app out, with its running pieces beside it."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from flask import Flask
from flask_socketio import SocketIO

from config.settings import ROOT, Settings, parse_networks
from sidecar.domain.events import Event, Volatile
from sidecar.domain.rooms import FREE
from sidecar.fanout.catchup import CatchUp
from sidecar.fanout.doorbells import Datagrams, Doorbell
from sidecar.fanout.engine import connection_count, is_open, make_socketio
from sidecar.fanout.hub import Hub
from sidecar.fanout.notices import Notices
from sidecar.fanout.recovery import TAKEN, Recovery
from sidecar.fanout.tail import Tail
from sidecar.fanout.websocket import Network
from sidecar.http.deliveries import deliveries as deliveries_routes
from sidecar.http.deployments import deployments as deployments_routes
from sidecar.http.errors import register_errors
from sidecar.http.live_push import live_push as live_push_routes
from sidecar.http.messages import messages as messages_routes
from sidecar.http.operating import operating
from sidecar.http.pages import pages
from sidecar.http.requests import Caller, register_requests
from sidecar.http.rooms import rooms as rooms_routes
from sidecar.http.tokens import tokens as tokens_routes
from sidecar.http.users import users as users_routes
from sidecar.http.webhooks import webhooks
from sidecar.jobs.live_push import LivePushing
from sidecar.jobs.presence import Presence
from sidecar.jobs.upkeep import Upkeep
from sidecar.observability.metrics import Metrics
from sidecar.services.access import Access
from sidecar.services.connections import Connections
from sidecar.services.deliveries import Deliveries
from sidecar.services.deployments import History
from sidecar.services.health import Health
from sidecar.services.inprocess import InProcess
from sidecar.services.keys import load_keys
from sidecar.services.limits import RateLimit
from sidecar.services.live_push import CHANGED, LivePushes
from sidecar.services.messages import Messages
from sidecar.services.rooms import Rooms, told
from sidecar.services.sources import builtin_sources, user_source
from sidecar.services.tokens import REVOKED, Tokens
from sidecar.services.users import DISCONNECTED, Users
from sidecar.services.views import Views
from sidecar.sockets.chat import Chat
from sidecar.sockets.credentials import URL_TOKEN
from sidecar.sockets.deployments import Subscriptions
from sidecar.sockets.gate import RECOVERS, Gate
from sidecar.sockets.handlers import Handlers
from sidecar.sockets.plain import PlainRooms
from sidecar.sockets.rights import Rights
from sidecar.sockets.sessions import Sessions
from sidecar.sockets.watch import Watch
from sidecar.store.database import Database, open_database
from sidecar.store.journal import found_journal, read_head
from sidecar.store.postgres import Postgres
from sidecar.store.writer import Writer
from sidecar.version import VERSION
from sidecar.wire.origins import Origins
from sidecar.wire.proxies import Proxies

ADMIN_TOKEN_FILE = "admin-token"  # noqa: S105 - a file's name
WEBHOOK_TOKEN_FILE = "webhook-token"  # noqa: S105 - a file's name
"""In the instance folder, written at the first start, readable by the owner alone."""

Control = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Core:
    """What the command line needs of an installation: its store and its tokens, without edges."""

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
    bells: tuple[Doorbell, ...]
    node: str
    """Names this process to the others, and is another at each start."""
    controls: dict[str, list[Control]]
    """What each type of control event does to this process."""

    def publish_volatile(self, news: Volatile) -> None:
        """To the subscribers of this process, and of the others that hear our doorbells."""
        self.hub.publish_volatile(news)
        for bell in self.bells:
            bell.tell(news)

    def close(self) -> None:
        """Commit what waits, then end."""
        self.writer.stop()
        self.tail.stop()
        for bell in self.bells:
            bell.stop()
        self.database.close()


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A whole sidecar: `app` answers requests once `start` was called; `stop` ends its greenlets."""

    app: Flask
    core: Core
    socketio: SocketIO
    network: Network
    gate: Gate
    watch: Watch
    sessions: Sessions
    jobs: tuple[Presence, Upkeep, LivePushing]

    def start(self) -> None:
        self.core.writer.start()
        self.core.tail.start()
        for bell in self.core.bells:
            bell.start(self.core.tail.heard, self.core.hub.publish_volatile)
        self.watch.start()
        self.sessions.start()
        for job in self.jobs:
            job.start()

    def stop(self) -> None:
        """Commit what waits, then end."""
        self.watch.stop()
        self.sessions.stop()
        for job in self.jobs:
            job.stop()
        self.core.close()


def open_core(settings: Settings, running: bool = False) -> Core:
    """The store and the tokens of an installation, made or upgraded if need be. With `running` the commands go
    through the writer's greenlet (after `writer.start`), otherwise each is committed at once by the caller."""
    app = Flask("sidecar", static_folder=None, template_folder=str(ROOT / "sidecar" / "web" / "templates"))
    instance = settings.instance_path
    database = open_database(app, settings.resolved_database_url, instance)
    database.upgrade(found_journal)
    metrics = Metrics()
    controls: dict[str, list[Control]] = {REVOKED: [], DISCONNECTED: [], TAKEN: [], CHANGED: []}

    def publish(event: Event) -> None:
        if event.control:
            for apply in controls.get(event.type, ()):
                apply(json.loads(event.payload))
        else:
            hub.publish(event)
            metrics.events.inc()

    tail = Tail(database, publish, on_gap=lambda: hub.cut_off_all())
    catchup = CatchUp(database, tail)
    hub = Hub(catchup.congested)
    node = secrets.token_hex(8)
    bells: list[Doorbell] = [Datagrams(instance, node, database.read(read_head).epoch)]
    if isinstance(database.backend, Postgres):
        bells.append(Notices(database.engine, database.backend))

    def committed(events: list[Event]) -> None:
        if running:
            tail.offer(events)
        for bell in bells:
            bell.ring(events)

    writer = Writer(database, committed)
    submit = writer.submit if running else writer.run_alone
    keys = load_keys(instance, settings.secret_key.get_secret_value() if settings.secret_key else None)
    tokens = Tokens(database, submit)
    controls[REVOKED].append(lambda body: tokens.forget(body["id"]))
    connections = Connections(keys, tokens, submit)
    return Core(
        app,
        database,
        writer,
        tail,
        hub,
        catchup,
        metrics,
        tokens,
        connections,
        Users(submit),
        tuple(bells),
        node,
        controls,
    )


def create_app(settings: Settings) -> Sidecar:
    """A sidecar for these settings, not started yet."""
    core = open_core(settings, running=True)
    app = core.app
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    app.json.sort_keys = False  # type: ignore[attr-defined]
    origins = Origins(settings.origins, settings.public_url)
    access = Access(core.connections, settings.open, settings.anonymous_read, parse_networks(settings.webhook_networks))
    history = History(core.database)
    views = Views(settings.stale_after_hours)
    deliveries = Deliveries(
        core.database, core.writer.submit, core.metrics, settings.deliveries_bytes, core.tokens.holder
    )
    caller = Caller(access, core.connections, origins)

    network = Network(settings.max_body_bytes, settings.outbox_bytes, settings.outbox_total_bytes, core.metrics)
    socketio = make_socketio(app, network, (URL_TOKEN, RECOVERS))
    namespaces = tuple(dict.fromkeys(("/", f"{settings.prefix}/ws")))
    rights = Rights(socketio, core.hub, history.projects_of)
    window = settings.recovery_seconds
    recovery = Recovery(core.writer.submit, core.node, window) if window else None
    watch = Watch()
    sessions = Sessions(
        socketio, namespaces, access, origins, core.hub, core.tail, core.catchup, rights, watch, recovery, core.metrics
    )
    core.controls[REVOKED].append(lambda body: watch.token_revoked(body["id"]))
    core.controls[DISCONNECTED].append(lambda body: watch.user_disconnected(body["user"]))
    core.controls[TAKEN].append(lambda body: sessions.taken(bytes.fromhex(body["pid"]), body["generation"]))
    handlers = Handlers(socketio, namespaces, sessions, core.metrics)
    Subscriptions(
        handlers,
        sessions,
        core.hub,
        core.catchup,
        rights,
        views.snapshot_of,
        history.project_of,
        settings.max_rooms,
    )
    limit = RateLimit(*settings.rate) if settings.rate else None
    messages = Messages(core.writer.submit)
    handlers.on("chat", Chat(messages, limit))
    plain = PlainRooms(network, access, origins, core.hub, core.tail, core.catchup, watch, messages, limit)

    def connections() -> int:
        return connection_count(socketio) + len(plain.sockets)

    sources = builtin_sources(core.database, connections, lambda: len(sessions))
    sources |= {name: user_source(path) for name, path in settings.live_source_paths.items()}
    pushes = LivePushes(core.database, core.writer.submit, sources)
    pushing = LivePushing(pushes, core.writer.submit, core.node, core.publish_volatile)
    core.controls[CHANGED].append(lambda _body: pushing.changed())
    health = Health(
        core.database,
        core.writer,
        core.tail,
        core.hub,
        core.catchup,
        connections,
        lambda: len(sessions),
        lambda: 0 if recovery is None else recovery.recovered,
    )
    register_errors(app)
    register_requests(app, caller, origins, core.metrics, limit)
    app.register_blueprint(webhooks(deliveries, caller, core.hub, core.tail))
    app.register_blueprint(deployments_routes(history, views, caller))
    app.register_blueprint(deliveries_routes(deliveries, caller))
    app.register_blueprint(tokens_routes(core.tokens, core.connections, caller, origins))
    app.register_blueprint(users_routes(core.users, caller, core.hub, core.tail))
    app.register_blueprint(messages_routes(messages, caller, core.hub, core.tail))
    app.register_blueprint(live_push_routes(pushes, caller, core.tail))
    app.register_blueprint(rooms_routes(Rooms(core.database, core.node, partial(_free_rooms, core.hub)), caller))
    app.register_blueprint(operating(health, core.metrics, caller, _info(settings)))
    app.register_blueprint(pages(caller, settings.instance_path / WEBHOOK_TOKEN_FILE, settings.open, namespaces[-1]))

    gate = Gate(
        app.wsgi_app,
        Proxies(parse_networks(settings.trusted_proxies), settings.prefix),
        origins,
        core.metrics,
        {"rooms": plain, "test": plain},
        connections,
        partial(is_open, socketio),
        settings.max_connections,
        RateLimit(*settings.handshakes) if settings.handshakes else None,
        settings.max_body_bytes,
    )
    app.wsgi_app = gate  # type: ignore[method-assign]
    jobs = (
        Presence(core.writer.submit, core.node, lambda: told(_free_rooms(core.hub)), sessions.have_all_come_back),
        Upkeep(core.writer.submit, core.node, settings.retention_days, window),
        pushing,
    )
    app.extensions["sidecar"] = InProcess(messages, pushes, sources)
    return Sidecar(app, core, socketio, network, gate, watch, sessions, jobs)


def _free_rooms(hub: Hub) -> dict[str, Counter[str]]:
    return {room.removeprefix(FREE): users for room, users in hub.users(FREE).items()}


def _info(settings: Settings) -> dict[str, object]:
    return {
        "name": "sidecar",
        "version": VERSION,
        "prefix": settings.prefix,
        "namespaces": ["/", f"{settings.prefix}/ws"],
        "open": settings.open,
        "anonymous_read": settings.anonymous_read,
        "max_body_bytes": settings.max_body_bytes,
    }
