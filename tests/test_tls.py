"""``rediss://``: certificate and host name are checked, against an authority of one's own."""

from __future__ import annotations

import datetime
import ipaddress
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.ssl import PrivateCertificate
from twisted.logger import globalLogPublisher
from twisted.protocols.portforward import ProxyFactory
from twisted.trial.unittest import TestCase

from tests.support import TIMEOUT, shared_redis, write_file
from ws4redis_tx.core.redis_address import parse_redis_address
from ws4redis_tx.server.broker import RedisBroker


def make_certificate(*names: x509.GeneralName) -> tuple[str, str]:
    """PEM of a self-signed certificate for ``names``, and of certificate and key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ws4redis_tx test")])
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


class TlsTests(TestCase):
    """A real Redis behind a door that speaks TLS."""

    timeout = 60

    @inlineCallbacks
    def open_door(self, *names: x509.GeneralName) -> Any:
        self.redis = shared_redis()
        public, both = make_certificate(*names)
        self.ca_file = write_file(self, public)
        factory = ProxyFactory("127.0.0.1", self.redis.port)
        factory.noisy = False
        door = SSL4ServerEndpoint(
            reactor, 0, PrivateCertificate.loadPEM(both).options(), interface="127.0.0.1"
        )
        port = yield door.listen(factory)
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port

    def broker(self, url: str) -> RedisBroker:
        broker = RedisBroker(parse_redis_address(url), "", reactor)
        self.addCleanup(broker.stopService)
        broker.startService()
        return broker

    def complaint(self) -> Deferred[str]:
        """Fire with the reason that the log gives for Redis being unavailable."""
        said: Deferred[str] = Deferred()

        def observe(event: Any) -> None:
            if "Redis is unavailable" in (event["log_format"] or "") and not said.called:
                said.callback(event["problem"])

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return said.addTimeout(TIMEOUT, reactor)

    @inlineCallbacks
    def test_a_certificate_of_the_named_authority_and_host_is_accepted(self) -> Any:
        yield self.open_door(x509.DNSName("localhost"))
        url = f"rediss://localhost:{self.port}/0?ssl_ca_certs={self.ca_file}"
        broker = self.broker(url)
        yield broker.when_available().addTimeout(TIMEOUT, reactor)
        yield broker.publish([b"a"], b"hi", 10)
        self.assertEqual(self.redis.command("GET", "a"), b"hi")

    @inlineCallbacks
    def test_a_certificate_of_an_unknown_authority_is_refused_and_the_log_says_why(self) -> Any:
        yield self.open_door(x509.DNSName("localhost"))
        complaint = self.complaint()
        broker = self.broker(f"rediss://localhost:{self.port}/0")
        self.assertIn("certificate", (yield complaint).lower())
        self.assertFalse(broker.available)

    @inlineCallbacks
    def test_a_certificate_for_another_host_is_refused(self) -> Any:
        yield self.open_door(
            x509.DNSName("elsewhere.example"), x509.IPAddress(ipaddress.ip_address("192.0.2.1"))
        )
        complaint = self.complaint()
        broker = self.broker(f"rediss://localhost:{self.port}/0?ssl_ca_certs={self.ca_file}")
        yield complaint
        self.assertFalse(broker.available)
