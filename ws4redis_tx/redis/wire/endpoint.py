"""Where to connect to Redis: TCP, TLS, a unix socket, or whatever the sentinels say."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, inlineCallbacks
from twisted.internet.endpoints import (
    HostnameEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from zope.interface import implementer

from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.redis.wire.protocol import LOST, CommandProtocol

CONNECT_TIMEOUT = 5.0
# A failover should not wait for a sentinel that went down with the master.
SENTINEL_TIMEOUT = 1.0


@implementer(IStreamClientEndpoint)
class SentinelEndpoint:
    """The server that is the master now, according to the first sentinel that answers."""

    def __init__(self, address: RedisAddress, reactor: Any) -> None:
        self._address = address
        self._tcp = _Tcp(address, reactor)
        self._reactor = reactor
        self.master: tuple[str, int] | None = None
        """Host and port, as the last sentinel that answered has them."""

    @inlineCallbacks
    def connect(self, factory: Any) -> Any:
        problem: Exception | None = None
        for host, port in self._address.sentinels:
            try:
                found = yield self._ask(host, port)
            except CancelledError:
                raise
            except Exception as error:
                problem = error  # the next one may answer
                continue
            if found:
                self.master = found[0].decode(), int(found[1])
                master = self._tcp.endpoint(*self.master, CONNECT_TIMEOUT)
                return (yield master.connect(factory))
        raise LOST(
            "no sentinel that answers knows the master" + (f" ({problem})" if problem else "")
        ) from problem

    @inlineCallbacks
    def _ask(self, host: str, port: int) -> Any:
        endpoint = self._tcp.endpoint(host, port, SENTINEL_TIMEOUT)
        sentinel = yield connectProtocol(endpoint, CommandProtocol())
        try:
            return (yield self._find_master(sentinel).addTimeout(SENTINEL_TIMEOUT, self._reactor))
        except CancelledError:
            raise
        except Exception as error:
            # Nothing else says why a TLS connection was lost.
            raise sentinel.lost.value if sentinel.lost is not None else error from None
        finally:
            sentinel.transport.abortConnection()

    @inlineCallbacks
    def _find_master(self, sentinel: CommandProtocol) -> Any:
        address = self._address
        if address.sentinel_password is not None:
            yield sentinel.auth(address.sentinel_password, address.sentinel_username)
        question = ("SENTINEL", "get-master-addr-by-name", address.service)
        return (yield sentinel.execute_command(*question))


def make_endpoint(address: RedisAddress, reactor: Any) -> IStreamClientEndpoint:
    """TLS checks certificate and host name, against ``ca_file`` or the system's authorities.

    Raises ``ConfigError`` when one of the files cannot be used.
    """
    if address.service is not None:
        return SentinelEndpoint(address, reactor)
    if address.path is not None:
        return UNIXClientEndpoint(reactor, address.path, timeout=CONNECT_TIMEOUT)
    return _Tcp(address, reactor).endpoint(address.host, address.port, CONNECT_TIMEOUT)


class _Tcp:
    """Endpoints that speak TLS if the address says so."""

    def __init__(self, address: RedisAddress, reactor: Any) -> None:
        self._reactor = reactor
        self._tls = address.tls
        self._trust: Any = None
        self._client: Any = None
        ssl: Any = _import_tls() if address.tls else None
        if address.ca_file is not None:
            pem = _read("ssl_ca_certs", address.ca_file)
            self._trust = _parsed("ssl_ca_certs", address.ca_file, _trust_root, pem)
        if address.certificate_file is not None:
            pem = _read("ssl_certfile", address.certificate_file)
            if address.key_file is not None:
                pem += _read("ssl_keyfile", address.key_file)
            self._client = _parsed(
                "ssl_certfile", address.certificate_file, ssl.PrivateCertificate.loadPEM, pem
            )

    def endpoint(self, host: str, port: int, timeout: float) -> IStreamClientEndpoint:
        endpoint = HostnameEndpoint(self._reactor, host, port, timeout=timeout)
        if not self._tls:
            return endpoint
        options = _import_tls().optionsForClientTLS(
            host, trustRoot=self._trust, clientCertificate=self._client
        )
        wrapped: IStreamClientEndpoint = wrapClientTLS(options, endpoint)
        return wrapped


def _import_tls() -> Any:
    """A plain connection does not need it, and a sub-interpreter cannot import it."""
    try:
        from twisted.internet import ssl
    except ImportError as error:
        raise ConfigError(
            "WS4REDIS_CONNECTION",
            f"asks for TLS, which cannot be imported here: {error}",
            "Under mod_wsgi, set WSGIApplicationGroup %{GLOBAL}.",
        ) from error
    return ssl


def _read(name: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(
            "WS4REDIS_CONNECTION",
            f"has a {name} that cannot be read: {error}",
            "Correct its path, or let the server's user read it.",
        ) from error


def _parsed(name: str, path: str, parse: Callable[[bytes], Any], pem: bytes) -> Any:
    try:
        return parse(pem)
    except Exception as error:
        needs = "certificate and key" if name == "ssl_certfile" else "certificates"
        raise ConfigError(
            "WS4REDIS_CONNECTION",
            f"has a {name}, {path}, that does not hold what it should",
            f"It needs {needs} in PEM format"
            + (" (the key may be in ssl_keyfile)." if name == "ssl_certfile" else "."),
        ) from error


def _trust_root(pem: bytes) -> Any:
    certificates = re.findall(
        rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", pem, re.S
    )
    if not certificates:
        raise ValueError("no certificate")
    ssl = _import_tls()
    return ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(each) for each in certificates])
