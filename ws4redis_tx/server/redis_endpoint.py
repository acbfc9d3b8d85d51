"""Where to connect to Redis: TCP, TLS, a unix socket, or whatever the sentinels say."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, inlineCallbacks
from twisted.internet.endpoints import (
    HostnameEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from zope.interface import implementer

from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.server.redis_protocol import LOST, CommandProtocol

CONNECT_TIMEOUT = 5.0
# A failover should not wait for a sentinel that went down with the master.
SENTINEL_TIMEOUT = 1.0


@implementer(IStreamClientEndpoint)
class SentinelEndpoint:
    """Whichever server is the master now, according to the first sentinel that answers."""

    def __init__(self, address: RedisAddress, reactor: Any) -> None:
        self._address = address
        self._reactor = reactor

    @inlineCallbacks
    def connect(self, factory: Any) -> Any:
        for host, port in self._address.sentinels:
            try:
                found = yield self._ask(host, port)
            except CancelledError:
                raise
            except Exception:
                continue  # the next one may answer
            if found:
                master = HostnameEndpoint(
                    self._reactor, found[0].decode(), int(found[1]), timeout=CONNECT_TIMEOUT
                )
                return (yield master.connect(factory))
        raise LOST("no sentinel that answers knows the master")

    @inlineCallbacks
    def _ask(self, host: str, port: int) -> Any:
        endpoint = HostnameEndpoint(self._reactor, host, port, timeout=SENTINEL_TIMEOUT)
        sentinel = yield connectProtocol(endpoint, CommandProtocol())
        try:
            question = ("SENTINEL", "get-master-addr-by-name", self._address.service)
            asked = sentinel.execute_command(*question)
            return (yield asked.addTimeout(SENTINEL_TIMEOUT, self._reactor))
        finally:
            sentinel.transport.loseConnection()


def make_endpoint(address: RedisAddress, reactor: Any) -> IStreamClientEndpoint:
    """TLS checks certificate and host name, against ``ca_file`` or the system's authorities."""
    if address.service is not None:
        return SentinelEndpoint(address, reactor)
    if address.path is not None:
        return UNIXClientEndpoint(reactor, address.path, timeout=CONNECT_TIMEOUT)
    endpoint = HostnameEndpoint(reactor, address.host, address.port, timeout=CONNECT_TIMEOUT)
    if not address.tls:
        return endpoint
    trust = None
    if address.ca_file is not None:
        with open(address.ca_file, "rb") as file:
            trust = trustRootFromCertificates([Certificate.loadPEM(file.read())])
    client = None
    if address.certificate_file is not None:
        pem = b""
        for path in (address.certificate_file, address.key_file):
            if path is not None:
                with open(path, "rb") as file:
                    pem += file.read()
        client = PrivateCertificate.loadPEM(pem)
    options = optionsForClientTLS(address.host, trustRoot=trust, clientCertificate=client)
    return wrapClientTLS(options, endpoint)
