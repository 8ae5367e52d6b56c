"""Puts the parts together: settings in, a Flask app out, with its running pieces beside it.

A function a room of the house, each built on those before it: the core (core.py), the services, the sockets, the live
pushes; then what the journal's control events do, the blueprints, the gate before everything, and the jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from flask import Flask
from flask_socketio import SocketIO

from config.settings import Settings, parse_networks
from sidecar.core import WEBHOOK_TOKEN_FILE, Core, open_core
from sidecar.fanout.engine import connection_count, is_open, make_socketio
from sidecar.fanout.recovery import TAKEN, Recovery
from sidecar.fanout.roster import Roster
from sidecar.fanout.websocket import Network
from sidecar.http.authorizations import authorizations as authorizations_routes
from sidecar.http.badges import badges as badges_routes
from sidecar.http.deliveries import deliveries as deliveries_routes
from sidecar.http.deployments import deployments as deployments_routes
from sidecar.http.docs import docs
from sidecar.http.errors import register_errors
from sidecar.http.live_push import live_push as live_push_routes
from sidecar.http.maim import maim as maim_routes
from sidecar.http.menu import menu as menu_routes
from sidecar.http.messages import messages as messages_routes
from sidecar.http.openapi import openapi
from sidecar.http.operating import operating
from sidecar.http.pages import pages
from sidecar.http.permissions import permissions as permissions_routes
from sidecar.http.projects import projects as projects_routes
from sidecar.http.requests import Caller, register_requests
from sidecar.http.rooms import rooms as rooms_routes
from sidecar.http.tokens import tokens as tokens_routes
from sidecar.http.users import users as users_routes
from sidecar.http.webhook_secrets import webhook_secrets as webhook_secrets_routes
from sidecar.http.webhooks import webhooks
from sidecar.jobs.authorizations import AuthorizationUpkeep
from sidecar.jobs.live_push import LivePushing
from sidecar.jobs.presence import Presence
from sidecar.jobs.projects import Deletions
from sidecar.jobs.upkeep import Upkeep
from sidecar.services.access import Access
from sidecar.services.authorization_cards import Cards
from sidecar.services.authorization_parts import Parts
from sidecar.services.authorization_upkeep import CleanUp
from sidecar.services.authorizations import Authorizations, Options
from sidecar.services.badges import Badges
from sidecar.services.deliveries import Deliveries
from sidecar.services.deployments import History
from sidecar.services.health import Health
from sidecar.services.inprocess import InProcess
from sidecar.services.lark import Lark
from sidecar.services.lark_apps import Apps
from sidecar.services.lark_callbacks import Callbacks
from sidecar.services.lark_handlers import EventHandlers, load_handlers
from sidecar.services.limits import RateLimit
from sidecar.services.live_push import CHANGED, LivePushes, Source
from sidecar.services.maim import Bots
from sidecar.services.maim_connections import CHANGED as BOTS_CHANGED
from sidecar.services.maim_connections import BotConnections
from sidecar.services.maim_delivery import RELAYED, Delivery
from sidecar.services.maim_embedded import EmbeddedServer
from sidecar.services.maim_figures import Figures
from sidecar.services.maim_hooks import Hooks, load_hooks
from sidecar.services.maim_keys import CHANGED as KEY_CHANGED
from sidecar.services.maim_queue import QUEUED, BotQueue
from sidecar.services.maim_seen import Seen
from sidecar.services.maim_sending import BotSending
from sidecar.services.menu import Menu
from sidecar.services.menu_changes import CHANGED as MENU_CHANGED
from sidecar.services.messages import Messages
from sidecar.services.metered import Metered
from sidecar.services.permissions import Permissions
from sidecar.services.projects import DELETED, Projects
from sidecar.services.providers import Provider
from sidecar.services.role_changes import CHANGED as PERMISSIONS_CHANGED
from sidecar.services.rooms import Rooms, told
from sidecar.services.sources import builtin_sources, user_source
from sidecar.services.tokens import REVOKED
from sidecar.services.user_tokens import TokenStore
from sidecar.services.users import DISCONNECTED
from sidecar.services.views import Views
from sidecar.sockets.chat import Chat
from sidecar.sockets.contract import servers, sockets_document
from sidecar.sockets.credentials import BOT_KEY, BOT_PLATFORM, BOT_UUID, URL_TOKEN
from sidecar.sockets.gate import RECOVERS, Gate
from sidecar.sockets.handlers import Handlers
from sidecar.sockets.maim import BotHouse, EngineBots, PlainBots
from sidecar.sockets.permissions import PlainPermissions
from sidecar.sockets.plain import PlainEndpoint
from sidecar.sockets.rights import Rights
from sidecar.sockets.rooms import PlainRooms
from sidecar.sockets.sessions import Sessions
from sidecar.sockets.subscriptions import Subscriptions
from sidecar.sockets.watch import Watch
from sidecar.version import VERSION
from sidecar.wire.origins import Origins
from sidecar.wire.proxies import Proxies
from sidecar.wire.spoken import Command
from sidecar.wire.told import CHAT


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
    jobs: tuple[Presence, Upkeep, Deletions, LivePushing, AuthorizationUpkeep]
    start_hooks: Callable[[], None]

    def start(self) -> None:
        self.core.start()
        self.start_hooks()
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


def create_app(settings: Settings) -> Sidecar:
    """A sidecar for these settings, not started yet."""
    core = open_core(settings, running=True)
    app = core.app
    _configure(app, settings)
    services = _services(settings, core)
    bots = _bots(settings, core, services)
    lark = _authorizations(settings, core)
    sockets = _sockets(settings, core, services, bots.bots)
    live = _live_push(settings, core, services, sockets)
    _obey_controls(core, services, bots, sockets, live)
    _register_routes(settings, core, services, bots.sending, lark, sockets, live)
    gate = _gate(settings, core, services, sockets)
    app.wsgi_app = gate  # type: ignore[method-assign]
    rooms = services.rooms

    def declared_dead() -> None:
        sockets.sessions.have_all_come_back()
        bots.connections.all_again()

    jobs = (
        Presence(core.writer.submit, core.node, lambda: told(rooms.here()), declared_dead),
        Upkeep(core.writer.submit, core.node, settings.retention_days, settings.recovery_seconds),
        Deletions(services.projects),
        live.pushing,
        AuthorizationUpkeep(
            lark.apps,
            lark.authorizations,
            lark.cards,
            lark.tokens,
            lark.callbacks,
            lark.cleaning,
            core.writer.submit,
            core.node,
            settings.lark_user_info_sync_schedule if settings.lark_user_info_sync else None,
        ),
    )
    app.extensions["sidecar"] = inside = InProcess(services.messages, live.pushes, live.sources)

    def hooks() -> None:
        bots.hooks.start(EmbeddedServer(bots.sending, bots.hooks))
        lark.handlers.start(inside)

    return Sidecar(app, core, sockets.socketio, sockets.network, gate, sockets.watch, sockets.sessions, jobs, hooks)


def _configure(app: Flask, settings: Settings) -> None:
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    app.json.sort_keys = False  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class _Services:
    """What both edges, HTTP and sockets, are given: the services (`core` has those of tokens), and who may come and
    how often."""

    origins: Origins
    access: Access
    limit: RateLimit | None
    """Bounds what each caller may do: its requests, and what it says over sockets."""
    history: History
    views: Views
    projects: Projects
    badges: Badges
    deliveries: Deliveries
    messages: Messages
    rooms: Rooms
    permissions: Permissions
    menu: Menu


def _services(settings: Settings, core: Core) -> _Services:
    database, submit = core.database, core.writer.submit
    webhook_networks = parse_networks(settings.webhook_networks)
    limit = RateLimit(*settings.rate) if settings.rate else None
    permissions = Permissions(database, submit)
    menu = Menu(database, submit, permissions)
    views = Views(settings.stale_after_hours, menu)
    return _Services(
        origins=Origins(settings.origins, settings.public_url),
        access=Access(
            core.connections, core.webhook_secrets, settings.open, settings.anonymous_read, webhook_networks, limit
        ),
        limit=limit,
        history=History(database),
        views=views,
        projects=Projects(database, submit, views.stale_before),
        badges=Badges(database, views, settings.public_badge_patterns),
        deliveries=Deliveries(database, submit, core.metrics, settings.deliveries_bytes, core.poster),
        messages=Messages(submit),
        rooms=Rooms(database, core.node, core.hub),
        permissions=permissions,
        menu=menu,
    )


@dataclass(frozen=True, slots=True)
class _Bots:
    """The traffic of bots (maim_message), without its edges."""

    bots: Bots
    sending: BotSending
    delivery: Delivery
    queue: BotQueue
    connections: BotConnections
    hooks: Hooks


def _bots(settings: Settings, core: Core, services: _Services) -> _Bots:
    """Raises Invalid for hooks that can't be imported."""
    database, submit, keys, roster = core.database, core.writer.submit, core.bot_keys, Roster()
    seal = core.keys.seal("maim")
    kinds = {"connections": settings.maim_connection_log, "messages": settings.maim_message_log}
    figures = Figures(core.metrics, roster, frozenset(kind for kind, on in kinds.items() if on))
    connections = BotConnections(database, submit, core.node, roster)
    queue = BotQueue(database, submit, roster, seal, settings.maim_queue_messages, settings.maim_queue_seconds)
    hooks = load_hooks(settings.maim_hooks, core.metrics)
    delivery = Delivery(submit, keys, connections, queue, hooks, seal)
    bots = Bots(keys, connections, queue, hooks, delivery, Seen(submit), figures, services.limit)
    sending = BotSending(submit, connections, delivery, figures)
    return _Bots(bots, sending, delivery, queue, connections, hooks)


@dataclass(frozen=True, slots=True)
class _Authorizations:
    """Authorizations of users through Lark, without their edges."""

    apps: Apps
    provider: Provider
    authorizations: Authorizations
    cards: Cards
    tokens: TokenStore
    handlers: EventHandlers
    callbacks: Callbacks
    cleaning: CleanUp


def _authorizations(settings: Settings, core: Core) -> _Authorizations:
    """Raises Invalid for handlers that can't be imported."""
    metrics = core.metrics.lark
    lark = Lark(
        settings.lark_api_url,
        settings.lark_accounts,
        settings.lark_timeout_seconds,
        settings.lark_card_template_id,
        settings.lark_card_description,
    )
    provider = Metered(lark, metrics)
    options = Options(
        settings.lark_redirect,
        settings.lark_scopes,
        settings.lark_session_seconds,
        settings.lark_user_rate_per_minute,
        settings.lark_language,
        settings.lark_refresh_threshold,
    )
    parts = Parts(core.database, core.writer.submit, core.apps, provider, core.vault, metrics)
    cards = Cards(parts)
    authorizations = Authorizations(parts, cards, options)
    tokens = TokenStore(parts, settings.lark_refresh_threshold)
    handlers = load_handlers(settings.lark_handlers, authorizations, provider, metrics)
    callbacks = Callbacks(parts, handlers, settings.lark_fallback_to_http)
    cleaning = CleanUp(parts, settings.retention_days * 86_400)
    return _Authorizations(core.apps, provider, authorizations, cards, tokens, handlers, callbacks, cleaning)


@dataclass(frozen=True, slots=True)
class _Sockets:
    """The live connections of this process, of Socket.IO and plain ones."""

    network: Network
    socketio: SocketIO
    watch: Watch
    recovery: Recovery | None
    sessions: Sessions
    plain_rooms: PlainRooms
    plain_permissions: PlainPermissions
    plain_bots: PlainBots
    commands: Sequence[Command]

    @property
    def plain(self) -> Mapping[str, PlainEndpoint]:
        """What plain WebSockets are for, by the word after /ws/."""
        return {"rooms": self.plain_rooms, "test": self.plain_rooms, "permissions": self.plain_permissions}

    def connections(self) -> int:
        """Open sockets of every kind."""
        plain = len(self.plain_rooms.sockets) + len(self.plain_permissions.sockets) + len(self.plain_bots.sockets)
        return connection_count(self.socketio) + plain

    def subscribers(self) -> int:
        """Namespaces connected over Socket.IO."""
        return len(self.sessions)

    def recovered(self) -> int:
        """Sessions given back to clients that came again."""
        return 0 if self.recovery is None else self.recovery.recovered


def _sockets(settings: Settings, core: Core, services: _Services, bots: Bots) -> _Sockets:
    hub, tail, catchup = core.hub, core.tail, core.catchup
    access, origins, history, messages = services.access, services.origins, services.history, services.messages
    namespaces = _namespaces(settings)
    window = settings.recovery_seconds
    network = Network(settings.max_body_bytes, settings.outbox_bytes, settings.outbox_total_bytes, core.metrics)
    socketio = make_socketio(core.app, network, (URL_TOKEN, RECOVERS, BOT_KEY, BOT_PLATFORM, BOT_UUID))
    house = BotHouse(bots, core.metrics)
    rights = Rights(socketio, hub, history.projects_of)
    recovery = Recovery(core.writer.submit, core.node, window) if window else None
    watch = Watch()
    engine_bots = EngineBots(socketio, house)
    sessions = Sessions(
        socketio, namespaces, access, origins, hub, tail, catchup, rights, watch, recovery, engine_bots, core.metrics
    )
    handlers = Handlers(socketio, namespaces, sessions, core.metrics)
    snapshot_of = services.views.snapshot_of
    Subscriptions(handlers, sessions, hub, catchup, rights, snapshot_of, history.project_of, settings.max_rooms)
    handlers.on(CHAT, Chat(messages, services.limit))
    common = (network, access, origins, hub, tail, catchup, watch, services.limit)
    plain_rooms = PlainRooms(messages, *common)
    plain_permissions = PlainPermissions(services.permissions, *common)
    plain_bots = PlainBots(network, house)
    return _Sockets(
        network, socketio, watch, recovery, sessions, plain_rooms, plain_permissions, plain_bots, handlers.commands
    )


@dataclass(frozen=True, slots=True)
class _LivePush:
    sources: dict[str, Source]
    pushes: LivePushes
    pushing: LivePushing


def _live_push(settings: Settings, core: Core, services: _Services, sockets: _Sockets) -> _LivePush:
    """Raises Invalid for a function of the settings that can't be imported."""
    sources = builtin_sources(core.database, sockets.connections, sockets.subscribers, services.views.stale_before)
    sources |= {name: user_source(path) for name, path in settings.live_source_paths.items()}
    pushes = LivePushes(core.database, core.writer.submit, sources)
    return _LivePush(sources, pushes, LivePushing(pushes, core.writer.submit, core.node, core.publish_volatile))


def _obey_controls(core: Core, services: _Services, bots: _Bots, sockets: _Sockets, live: _LivePush) -> None:
    """What the control events of the journal do here, whichever process wrote them. (The core itself forgets revoked
    tokens, before.)"""
    watch, sessions = sockets.watch, sockets.sessions
    core.on_control(REVOKED, lambda body: watch.token_revoked(body["id"]))
    core.on_control(DISCONNECTED, lambda body: watch.user_disconnected(body["user"]))
    core.on_control(TAKEN, lambda body: sessions.taken(bytes.fromhex(body["pid"]), body["generation"]))
    core.on_control(DELETED, lambda _body: core.tail.forget_recent())
    core.on_control(DELETED, lambda _body: sessions.doubt_deployments())
    core.on_control(CHANGED, lambda _body: live.pushing.changed())
    core.on_control(MENU_CHANGED, lambda body: services.menu.heard(body["version"]))
    core.on_control(PERMISSIONS_CHANGED, lambda body: services.permissions.heard(body["version"]))
    core.on_control(KEY_CHANGED, lambda body: bots.bots.key_changed(body["id"], body["revoked"]))
    core.on_control(BOTS_CHANGED, lambda body: bots.bots.others_changed(**body))
    core.on_control(RELAYED, lambda body: bots.delivery.relayed(core.node, body))
    core.on_control(QUEUED, bots.queue.heard)
    core.gaps.extend([services.menu.doubt, services.permissions.doubt, bots.bots.doubt])


def _register_routes(
    settings: Settings,
    core: Core,
    services: _Services,
    bots: BotSending,
    lark: _Authorizations,
    sockets: _Sockets,
    live: _LivePush,
) -> None:
    """What requests pass through, and a blueprint a noun."""
    app, hub, tail = core.app, core.hub, core.tail
    caller = Caller(services.access, core.connections, services.origins)
    health = Health(
        core.database,
        core.writer,
        tail,
        hub,
        core.catchup,
        core.bells,
        core.redis_bell,
        sockets.connections,
        sockets.subscribers,
        sockets.recovered,
    )
    first_token_file = settings.instance_path / WEBHOOK_TOKEN_FILE
    register_errors(app)
    register_requests(app, caller, services.origins, core.metrics, services.limit)
    for blueprint in (
        webhooks(services.deliveries, caller, hub, tail),
        deployments_routes(services.history, services.views, caller),
        projects_routes(services.projects, caller),
        badges_routes(services.badges, caller),
        deliveries_routes(services.deliveries, caller),
        webhook_secrets_routes(core.webhook_secrets, caller),
        tokens_routes(core.tokens, core.connections, caller, services.origins),
        users_routes(core.users, caller, hub, tail),
        messages_routes(services.messages, caller, hub, tail),
        live_push_routes(live.pushes, caller, tail),
        rooms_routes(services.rooms, caller),
        menu_routes(services.menu, caller, hub, tail),
        permissions_routes(services.permissions, services.menu, caller, hub, tail),
        maim_routes(bots, core.bot_keys, caller),
        authorizations_routes(
            lark.authorizations,
            lark.tokens,
            lark.callbacks,
            lark.cleaning,
            lark.apps,
            lark.provider,
            caller,
            settings.lark_language,
            f"{settings.public_url}{settings.prefix}" if settings.public_url else None,
        ),
        operating(health, core.metrics, lark.cleaning.measure, caller, _info(settings)),
        pages(caller, first_token_file, settings.open, _namespaces(settings)[-1]),
        openapi(app),
        docs(partial(sockets_document, VERSION, _namespaces(settings), sockets.commands, sockets.plain), servers),
    ):
        app.register_blueprint(blueprint)


def _gate(settings: Settings, core: Core, services: _Services, sockets: _Sockets) -> Gate:
    """The outermost, around what Flask-SocketIO has put around Flask."""
    return Gate(
        core.app.wsgi_app,
        Proxies(parse_networks(settings.trusted_proxies), settings.prefix),
        services.origins,
        core.metrics,
        sockets.plain,
        sockets.plain_bots,
        sockets.connections,
        partial(is_open, sockets.socketio),
        settings.max_connections,
        RateLimit(*settings.handshakes) if settings.handshakes else None,
        settings.max_body_bytes,
    )


def _namespaces(settings: Settings) -> tuple[str, str]:
    """Those of Socket.IO: the default one, and the one that the pages use."""
    return "/", f"{settings.prefix}/ws"


def _info(settings: Settings) -> dict[str, object]:
    return {
        "name": "sidecar",
        "version": VERSION,
        "prefix": settings.prefix,
        "namespaces": list(_namespaces(settings)),
        "open": settings.open,
        "anonymous_read": settings.anonymous_read,
        "max_body_bytes": settings.max_body_bytes,
    }
