"""Two sidecars as on two hosts, with a PostgreSQL, a Redis and an nginx that they share; and those two in network
namespaces of their own, where that is wanted and the machine allows it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import namespaces
from tests.chaos.namespaces import Node, NodeSidecar
from tests.postgres import Postgres, programs
from tests.programs import ROOT, Nginx, running_nginx
from tests.redis import RedisServer
from tests.servers import RunningSidecar, two_processes

SHIPPED = "server 127.0.0.1:8091 max_fails=0;"


@dataclass(frozen=True, slots=True)
class Hosts:
    """`nodes` is empty where the sidecars are on two ports of this machine's loopback."""

    servers: list[RunningSidecar]
    nodes: list[Node]
    postgres: Postgres
    database: str
    redis: RedisServer
    nginx: Nginx


@contextlib.contextmanager
def nginx_before(servers: Sequence[RunningSidecar], folder: Path) -> Iterator[Nginx]:
    """nginx/sidecar.conf, with these as its upstreams."""
    site = (ROOT / "nginx" / "sidecar.conf").read_text()
    assert SHIPPED in site
    upstreams = "\n    ".join(f"server {server.address}:{server.port} max_fails=0;" for server in servers)
    with running_nginx(folder, site.replace(SHIPPED, upstreams, 1), servers[0].port) as running:
        yield running


@contextlib.contextmanager
def two_ports(folder: Path, postgres: Postgres, redis: RedisServer) -> Iterator[Hosts]:
    """Each with a folder of its own, as on two hosts, on loopback."""
    database = postgres.new_database()
    url = postgres.url(database).replace("+psycopg", "")
    with (
        two_processes(folder, url, apart=True, SIDECAR_REDIS_URL=redis.url) as servers,
        nginx_before(servers, folder / "nginx") as nginx,
    ):
        yield Hosts(servers, [], postgres, database, redis, nginx)


@contextlib.contextmanager
def two_namespaces(folder: Path) -> Iterator[Hosts]:
    """With a PostgreSQL and a Redis of their own, on the other end of their cables."""
    found = programs()
    assert found is not None
    with contextlib.ExitStack() as ends:
        network = ends.enter_context(namespaces.network(2))
        postgres = Postgres(found, network.address)
        ends.callback(postgres.remove)
        postgres.start()
        redis = RedisServer(address=network.address)
        ends.callback(redis.remove)
        redis.start()
        database = postgres.new_database()
        environment = {
            "SIDECAR_DATABASE_URL": postgres.url(database).replace("+psycopg", ""),
            "SIDECAR_REDIS_URL": redis.url,
            "SIDECAR_RATE_LIMIT": "off",
            "SIDECAR_TRUSTED_PROXIES": f"loopback,{network.address}",
        }
        servers: list[RunningSidecar] = []
        for node in network.nodes:
            server = NodeSidecar(node, folder / node.name, environment)
            if servers:
                ignored = shutil.ignore_patterns("doorbells")
                shutil.copytree(servers[0].instance, server.instance, ignore=ignored)
            server.start()
            ends.callback(server.stop)
            servers.append(server)
        nginx = ends.enter_context(nginx_before(servers, folder / "nginx"))
        yield Hosts(servers, network.nodes, postgres, database, redis, nginx)
