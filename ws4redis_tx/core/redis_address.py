"""The address and credentials of Redis, from a URL or from the old settings dictionary."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from ws4redis_tx.core.errors import ConfigError

# Callers that know where it was written put its name in place of this.
_SETTING = "The address of Redis"
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_FORMS = (
    "Write redis://host:6379/0, rediss://host:6380/0, unix:///path/to.sock?db=0, sentinel://… or "
    "embedded://localhost:6379."
)
# The embedded server listens on 127.0.0.1 alone.
_EMBEDDED_HOSTS = ("localhost", "127.0.0.1")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A Redis server, at its Unix socket ``path``, or else at ``host`` and ``port``. If there are
    ``sentinels``, they name the master of ``service`` instead.

    ``db`` selects the database for persisted messages. Pub/sub ignores it: all databases of a
    server share their channels, so two applications need different prefixes.

    If it is ``embedded``, ``manage.py runserver`` and ``twistd ws4redis`` start a Redis there
    unless one listens. For everybody else it is an address like any other.
    """

    host: str = "localhost"
    port: int = 6379
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    path: str | None = None
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    embedded: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        for name in _TEXTS:  # an empty password used to mean none
            object.__setattr__(self, name, getattr(self, name) or None)
        if not self.tls and (self.ca_file or self.certificate_file or self.key_file):
            raise ConfigError(
                _SETTING,
                "names TLS files without asking for TLS",
                "Write rediss://…, sentinel://…?ssl=true, or 'ssl': True.",
            )
        if self.tls and self.path is not None:
            raise ConfigError(_SETTING, "asks for TLS on a Unix socket", "Leave ssl out.")

    def __str__(self) -> str:
        """The address as a URL, without its password."""
        if self.path is not None:
            return f"unix://{quote(self.path)}?db={self.db}"
        if self.embedded:
            return f"embedded://{self.host}:{self.port}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{quote(self.username, safe='')}@" if self.username else ""
        if self.service is not None:
            hosts = ",".join(f"{name}:{port}" for name, port in self.sentinels)
            return f"sentinel://{user}{hosts}/{quote(self.service)}/{self.db}"
        return f"{'rediss' if self.tls else 'redis'}://{user}{host}:{self.port}/{self.db}"


def parse_redis_address(value: object) -> RedisAddress:
    """Parse a setting: ``None``, a URL, a dictionary, or an address, which is returned as it is.

    Options of redis-py that have no effect here are warned of. Raises ``ConfigError``, whose text
    contains no password.
    """
    for each in without_effect(value):
        warnings.warn(str(each), stacklevel=2)
    return read_redis_address(value)


def read_redis_address(value: object) -> RedisAddress:
    """``parse_redis_address`` without its warnings."""
    if value is None:
        return RedisAddress()
    if isinstance(value, RedisAddress):
        return value
    if isinstance(value, str):
        return _from_url(value)
    if isinstance(value, Mapping):
        return _from_mapping(value)
    raise ConfigError(_SETTING, f"is a {type(value).__name__}", _FORMS)


def without_effect(value: object) -> Iterator[ConfigError]:
    """The options in a dictionary that redis-py knew and that have no effect here."""
    for name, given in value.items() if isinstance(value, Mapping) else ():
        agreed, remedy = _REDIS_PY.get(name, ((), ""))
        if remedy and str(given).lower() not in agreed:
            yield ConfigError(_SETTING, f"holds {name}, which has no effect", remedy)


@lru_cache(maxsize=8)  # called for each publish
def _from_url(url: str) -> RedisAddress:
    if url.startswith("sentinel://"):
        return _from_sentinel_url(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError(_SETTING, "is a URL that cannot be parsed", _FORMS) from None
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    known = {"db"} if parts.scheme == "unix" else {"db", *_TLS_FILES}
    if parts.fragment or query.keys() - known:
        raise ConfigError(
            _SETTING,
            "is a URL with unknown parts",
            f"After '?', use only {', '.join(sorted(known))}. Write '#' in a password as %23.",
        )
    username = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    if parts.scheme == "unix":
        if not parts.path:
            raise ConfigError(_SETTING, "is a unix URL without a path", _FORMS)
        return RedisAddress(
            db=_number("db", query.pop("db", 0)),
            username=username,
            password=password,
            path=unquote(parts.path),
        )
    if parts.scheme == "embedded":
        rest = (parts.path.strip("/") or "0", parts.query, parts.username, parts.password)
        host = parts.hostname or "localhost"
        if rest != ("0", "", None, None) or host not in _EMBEDDED_HOSTS:
            raise ConfigError(
                _SETTING,
                "is an embedded:// URL with more than a port of this machine",
                "Write embedded://localhost:6379. Its database is 0, and it has no password.",
            )
        return RedisAddress(host=host, port=6379 if port is None else port, embedded=True)
    if parts.scheme not in ("redis", "rediss"):
        # The scheme of localhost:6379 would be localhost.
        raise ConfigError(_SETTING, "does not begin with redis:// or a like scheme", _FORMS)
    return RedisAddress(
        host=parts.hostname or "localhost",
        port=6379 if port is None else port,
        db=_number("db", parts.path.strip("/") or query.get("db", 0)),
        username=username,
        password=password,
        tls=parts.scheme == "rediss",
        **_tls_files(query),
    )


def _tls_files(query: Mapping[str, str]) -> dict[str, Any]:
    return {_KEYS[name]: query[name] for name in _TLS_FILES if name in query}


def _from_sentinel_url(url: str) -> RedisAddress:
    match = re.fullmatch(
        r"sentinel://(?:([^:@/]*)(?::([^@/]*))?@)?([^@/?#]+)/([^/?#]+)(?:/([^/?#]*))?(?:\?(.*))?",
        url,
    )
    if match is None:
        raise ConfigError(
            _SETTING,
            "is a sentinel URL that cannot be parsed",
            "Write sentinel://host1:26379,host2:26379/service/0.",
        )
    username, password, hosts, service, db, query_text = match.groups()
    query = {name: values[-1] for name, values in parse_qs(query_text or "").items()}
    known = {"ssl", "sentinel_username", "sentinel_password", *_TLS_FILES}
    if query.keys() - known or query.get("ssl", "true") not in ("true", "false"):
        raise ConfigError(
            _SETTING,
            "is a sentinel URL with unknown parts",
            f"After '?', use only {', '.join(sorted(known))}. The value of ssl is true or false.",
        )
    sentinels = []
    for each in hosts.split(","):
        found = re.fullmatch(r"(?:\[([^\]]+)\]|([^\[\]:]+))(?::([0-9]+))?", each)
        if found is None:
            raise ConfigError(
                _SETTING,
                "names a sentinel that cannot be parsed",
                "Write sentinel://host1:26379,host2:26379/service/0, and put an IPv6 address in "
                "brackets.",
            )
        sentinels.append((found[1] or found[2], _number("port", found[3] or 26379)))
    return RedisAddress(
        username=unquote(username) if username else None,
        password=unquote(password) if password else None,
        db=_number("db", db or 0),
        sentinels=tuple(sentinels),
        service=unquote(service),
        sentinel_username=query.get("sentinel_username"),
        sentinel_password=query.get("sentinel_password"),
        tls=query.get("ssl", "false") == "true",
        **_tls_files(query),
    )


_KEYS = {
    "host": "host",
    "port": "port",
    "db": "db",
    "password": "password",
    "username": "username",
    "unix_socket_path": "path",
    "ssl": "tls",
    "ssl_ca_certs": "ca_file",
    "ssl_certfile": "certificate_file",
    "ssl_keyfile": "key_file",
}


# Fields that may be off.
_TEXTS = (
    "username", "password", "path", "sentinel_username", "sentinel_password", "ca_file",
    "certificate_file", "key_file",
)  # fmt: skip

_TIME = "WS4REDIS_TIMEOUT says how many seconds a publish or a fetch in Django may take."
_PROBES = "Remove it: a dead connection is noticed by PING."
_BYTES = "Remove it: messages are bytes, also those of fetch_message; text is UTF-8."
_RETRIES = (
    "Remove it: a message is never sent twice, and BrokerUnavailable.maybe_published says when its "
    "fate is unknown."
)
_CERTIFICATE = "Certificates are always checked: name an authority of your own in ssl_ca_certs."

# Options of redis-py that have no effect: the values that ask for nothing else than what is done
# here anyway, in small letters, and what replaces the option.
_REDIS_PY = {
    "socket_timeout": (("none",), _TIME),
    "socket_connect_timeout": (("none",), _TIME),
    "socket_keepalive": (("none", "false"), _PROBES),
    "socket_keepalive_options": (("none", "{}"), _PROBES),
    "health_check_interval": (("none", "0"), _PROBES),
    "decode_responses": (("none", "false"), _BYTES),
    "charset": (("none", "utf-8", "utf8"), _BYTES),
    "encoding": (("none", "utf-8", "utf8"), _BYTES),
    "errors": (("none", "strict"), _BYTES),
    "encoding_errors": (("none", "strict"), _BYTES),
    "max_connections": (("none",), "Remove it: a process has two connections at most."),
    "retry_on_timeout": (("none", "false"), _RETRIES),
    "retry_on_error": (("none", "[]"), _RETRIES),
    "retry": (("none",), _RETRIES),
    "client_name": (("none",), "Remove it."),
    "protocol": (("none", "2"), "Remove it."),
    "ssl_cert_reqs": (("required", "cert_required", "2"), _CERTIFICATE),
    "ssl_check_hostname": (("true",), _CERTIFICATE),
}


def _from_mapping(mapping: Mapping[str, object]) -> RedisAddress:
    mapping = {name: value for name, value in mapping.items() if name not in _REDIS_PY}
    unknown = sorted(map(str, mapping.keys() - _KEYS.keys()))
    if unknown:
        raise ConfigError(
            _SETTING,
            f"holds unknown keys: {', '.join(unknown)}",
            f"Use {', '.join(_KEYS)}, or a URL.",
        )
    fields = {
        _KEYS[name]: value
        for name, value in mapping.items()
        if value is not None and not (value is False and _KEYS[name] in _TEXTS)
    }
    for name in ("port", "db"):
        if name in fields:
            fields[name] = _number(name, fields[name])
    for name, value in fields.items():
        if not isinstance(value, int if name in ("port", "db", "tls") else str):
            raise ConfigError(_SETTING, f"has a {name} of the wrong type", _FORMS)
    return RedisAddress(**fields)  # type: ignore[arg-type]


def _number(name: str, value: object) -> int:
    if not isinstance(value, int | str) or not str(value).isdecimal():
        raise ConfigError(_SETTING, f"has a {name} that is not a number", _FORMS)
    number = int(value)
    if name == "port" and number > 65535:
        raise ConfigError(_SETTING, "has a port above 65535", _FORMS)
    return number
