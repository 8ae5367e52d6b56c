"""ClientConfig: names, defaults, and what is refused."""

from __future__ import annotations

import ssl
from dataclasses import fields
from typing import Any

import pytest

from sidecar.client.maim import ClientConfig, create_client_config, create_ssl_client_config

DEFAULTS = {
    "platform": "default",
    "auto_reconnect": True,
    "max_reconnect_attempts": 5,
    "reconnect_delay": 1.0,
    "max_reconnect_delay": 30.0,
    "ping_interval": 20,
    "ping_timeout": 10,
    "close_timeout": 10,
    "max_size": 104857600,
    "ssl_enabled": False,
    "ssl_verify": True,
    "ssl_ca_certs": None,
    "ssl_certfile": None,
    "ssl_keyfile": None,
    "ssl_check_hostname": True,
    "on_connect": None,
    "on_disconnect": None,
    "on_message": None,
    "custom_handlers": {},
    "enable_connection_log": True,
    "enable_message_log": True,
    "log_level": "INFO",
}


def test_the_defaults_are_those_of_the_guide():
    config = create_client_config("ws://127.0.0.1:1/ws", "key")
    assert {name: getattr(config, name) for name in DEFAULTS} == DEFAULTS


def test_wss_switches_tls_on():
    assert not create_client_config("ws://h/ws", "key").ssl_enabled
    assert create_client_config("wss://h/ws", "key").ssl_enabled
    assert create_client_config("wss://h/ws", "key", ssl_enabled=False).ssl_enabled


def test_tls_by_url_or_by_host_and_port():
    assert create_ssl_client_config("wss://h:1/x", "key", ssl_ca_certs="ca.pem").url == "wss://h:1/x"
    built = create_ssl_client_config(host="h", port=443, path="/p", api_key="key", platform="qq")
    assert (built.url, built.platform, built.ssl_enabled) == ("wss://h:443/p", "qq", True)
    assert create_ssl_client_config(api_key="key").url == "wss://localhost:18044/ws"
    with pytest.raises(ValueError, match="api_key"):
        create_ssl_client_config("wss://h/ws")
    with pytest.raises(ValueError, match="begins with wss://"):
        create_ssl_client_config("ws://h/ws", "key")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "http://h/ws"}, "url must begin"),
        ({"url": "h:80"}, "url must begin"),
        ({"url": None}, "url must begin"),
        ({"url": "ws://"}, "no host"),
        ({"url": "ws://h:99999/"}, "no host or no valid port"),
        ({"url": "ws://[::1"}, "no host or no valid port"),
        ({"api_key": ""}, "api_key is missing"),
        ({"api_key": None}, "api_key is missing"),
        ({"api_key": "secret\r\nx-more: 1"}, "api_key holds characters"),
        ({"api_key": "secret-钥匙"}, "api_key holds characters"),
        ({"platform": ""}, "platform is missing"),
        ({"platform": "q\nq"}, "platform holds characters"),
        ({"reconnect_delay": -1}, "reconnect_delay must be"),
        ({"max_reconnect_attempts": "5"}, "max_reconnect_attempts must be"),
        ({"ping_interval": True}, "ping_interval must be"),
        ({"log_level": "LOUD"}, "log_level"),
        ({"on_message": "print"}, "on_message must be a function"),
        ({"custom_handlers": []}, "custom_handlers must be a dict"),
        ({"connection_uuid": "u\r\nx-apikey: secret"}, "connection_uuid and headers"),
        ({"headers": {"x-more": "1\r\nx-less: secret"}}, "connection_uuid and headers"),
        ({"headers": {"x-more": 1}}, "connection_uuid and headers"),
        ({"ssl_keyfile": "key.pem"}, "ssl_keyfile"),
    ],
)
def test_what_can_not_be_is_refused_without_repeating_it(options: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words) as caught:
        ClientConfig(**{"url": "ws://h/ws", "api_key": "secret", **options})
    assert "secret" not in str(caught.value)


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(ValueError, match=r"url must begin.*api_key is missing.*log_level"):
        ClientConfig(url="", api_key="", log_level="")


def test_its_repr_shows_no_secret():
    config = ClientConfig("wss://ada:pass@h:1/ws?api_key=secret", "secret", headers={"x": "secret"})
    assert repr(config) == "ClientConfig('wss://h:1/ws', platform='default')"
    assert {field.name for field in fields(config)} > set(DEFAULTS)


def test_what_the_tls_options_do():
    strict = create_client_config("wss://h/ws", "key").ssl_context()
    assert strict is not None
    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert strict.minimum_version >= ssl.TLSVersion.TLSv1_2
    any_name = create_client_config("wss://h/ws", "key", ssl_check_hostname=False).ssl_context()
    assert any_name is not None
    assert (any_name.verify_mode, any_name.check_hostname) == (ssl.CERT_REQUIRED, False)
    blind = create_client_config("wss://h/ws", "key", ssl_verify=False).ssl_context()
    assert blind is not None
    assert (blind.verify_mode, blind.check_hostname) == (ssl.CERT_NONE, False)
    assert create_client_config("ws://h/ws", "key").ssl_context() is None
