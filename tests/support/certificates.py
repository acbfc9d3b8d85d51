"""Self-signed certificates, and a Redis behind TLS."""

from __future__ import annotations

import datetime
from itertools import count
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.ssl import Certificate, PrivateCertificate
from twisted.logger import globalLogPublisher
from twisted.protocols.portforward import ProxyFactory
from twisted.trial.unittest import TestCase

from tests.support import TIMEOUT
from tests.support.brokers import start_broker
from tests.support.programs import write_file
from tests.support.redis import shared_redis
from ws4redis_tx.core.redis_address import parse_redis_address
from ws4redis_tx.redis.broker import RedisBroker

# OpenSSL distinguishes authorities by their names.
_numbers = count()


def make_certificate(*names: x509.GeneralName) -> tuple[str, str]:
    """A self-signed certificate for ``names`` as PEM, alone and with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"ws4redis_tx test {next(_numbers)}")]
    )
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public = certificate.public_bytes(serialization.Encoding.PEM).decode()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    return public, public + private


class TlsTestCase(TestCase):
    """A real Redis behind a proxy that speaks TLS."""

    timeout = 60

    @inlineCallbacks
    def open_door(self, *names: x509.GeneralName, lets_in: str | None = None) -> Any:
        """Listen with TLS for ``names``. If ``lets_in`` is given, clients need that certificate."""
        self.redis = shared_redis()
        public, both = make_certificate(*names)
        self.ca_file = write_file(self, public)
        clients = [] if lets_in is None else [Certificate.loadPEM(lets_in)]
        self.port = yield self.listen(
            ProxyFactory("127.0.0.1", self.redis.port),
            PrivateCertificate.loadPEM(both).options(*clients),
        )

    @inlineCallbacks
    def listen(self, factory: Any, options: Any) -> Any:
        factory.noisy = False
        door = SSL4ServerEndpoint(reactor, 0, options, interface="127.0.0.1")
        port = yield door.listen(factory)
        self.addCleanup(port.stopListening)
        return port.getHost().port

    def broker(self, url: str) -> RedisBroker:
        return start_broker(self, parse_redis_address(url))

    def complaint(self) -> Deferred[str]:
        """Fire with the reason that the log gives for Redis being unavailable."""
        said: Deferred[str] = Deferred()

        def observe(event: Any) -> None:
            if "Redis is unavailable" in (event["log_format"] or "") and not said.called:
                said.callback(event["problem"])

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return said.addTimeout(TIMEOUT, reactor)
