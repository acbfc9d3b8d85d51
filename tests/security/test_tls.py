"""TLS, towards browsers and towards Redis."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS

from tests.security.cases import SecurityTestCase, Visit
from tests.support import TIMEOUT
from tests.support.certificates import TlsTestCase, make_certificate
from tests.support.clients import exchange
from tests.support.programs import write_file
from tests.support.servers import LISTEN
from tests.support.wires import handshake_bytes, status_of
from ws4redis_tx.config import django_settings
from ws4redis_tx.service import make_service


class Thief(Protocol):
    """Takes the place of Redis, and keeps everything it is told."""

    def dataReceived(self, data: bytes) -> None:
        self.factory.told.append(data)
        self.transport.write(b"+OK\r\n" * data.count(b"*"))


class TransportTests(SecurityTestCase, TlsTestCase):
    """TLS, towards browsers and towards Redis."""

    @inlineCallbacks
    def assert_no_service(self, url: str) -> Any:
        """Nobody is served with Redis at ``url``; fire with the reason in the log."""
        complaint = self.complaint()
        self.override(WS4REDIS_CONNECTION=url)
        self.launch(make_service(django_settings.server_config(LISTEN)))
        why = yield complaint
        status, answer = yield self.refusal()
        self.assertEqual(status, 503)
        self.assertNotIn(b"s3cret", answer)
        self.assertNotIn("s3cret", why)
        return why

    @inlineCallbacks
    def set_a_trap(self, name: str) -> Any:
        """Fire with the port of a thief certified for ``name``, and with all it is told."""
        public, both = make_certificate(x509.DNSName(name))
        self.ca_file = write_file(self, public)
        trap = Factory.forProtocol(Thief)
        trap.told = []
        port = yield self.listen(trap, PrivateCertificate.loadPEM(both).options())
        return port, trap.told

    @inlineCallbacks
    def test_a_false_redis_with_a_certificate_of_its_own_making_learns_no_password(self) -> Any:
        port, told = yield self.set_a_trap("localhost")
        why = yield self.assert_no_service(f"rediss://web:s3cret@localhost:{port}/0")
        self.assertIn("certificate", why)
        self.assertEqual(told, [])

    @inlineCallbacks
    def test_nor_does_one_with_a_good_certificate_for_another_host(self) -> Any:
        port, told = yield self.set_a_trap("evil.example")
        yield self.assert_no_service(
            f"rediss://web:s3cret@localhost:{port}/0?ssl_ca_certs={self.ca_file}"
        )
        self.assertEqual(told, [])
        # Where the name is right, the same thief is told everything: the trap works.
        port, told = yield self.set_a_trap("localhost")
        broker = self.broker(f"rediss://web:s3cret@localhost:{port}/0?ssl_ca_certs={self.ca_file}")
        yield broker.commands.when_connected()
        self.assertIn(b"s3cret", b"".join(told))

    @inlineCallbacks
    def test_who_has_no_client_certificate_is_not_served_and_who_has_it_is(self) -> Any:
        mine, both = make_certificate(x509.DNSName("client"))
        _, forged = make_certificate(x509.DNSName("client"))
        yield self.open_door(x509.DNSName("localhost"), lets_in=mine)
        url = f"rediss://localhost:{self.port}/0?ssl_ca_certs={self.ca_file}"
        yield self.assert_no_service(url)
        yield self.assert_no_service(f"{url}&ssl_certfile={write_file(self, forged)}")
        yield self.serve_redis(f"{url}&ssl_certfile={write_file(self, both)}")

    @inlineCallbacks
    def test_a_wrong_password_serves_nobody_and_is_in_no_answer_and_no_log(self) -> Any:
        self.redis.command("ACL", "SETUSER", "web", "on", ">right", "~*", "&*", "+@all")
        self.addCleanup(self.redis.command, "ACL", "DELUSER", "web")
        why = yield self.assert_no_service(f"redis://web:s3cret@127.0.0.1:{self.redis.port}/0")
        self.assertIn("WRONGPASS", why)
        yield self.serve_redis(f"redis://web:right@127.0.0.1:{self.redis.port}/0")

    @inlineCallbacks
    def serve_redis(self, url: str) -> Any:
        self.override(WS4REDIS_CONNECTION=url)
        yield self.start_server(django_settings.server_config(LISTEN))
        client = yield self.open("foobar?subscribe-broadcast")
        self.redis.command("PUBLISH", "broadcast:foobar", "hello")
        self.assertEqual((yield client.next()), "hello")

    @inlineCallbacks
    def test_where_the_server_speaks_tls_nothing_without_it_gets_in(self) -> Any:
        public, both = make_certificate(x509.DNSName("localhost"))
        file = write_file(self, both)
        self.override(WS4REDIS_CONNECTION=str(self.redis.address))
        door = f"ssl:0:interface=127.0.0.1:privateKey={file}:certKey={file}"
        yield self.start_server(django_settings.server_config((door,)))
        host, john = f"localhost:{self.port}", (yield self.john())
        told = yield exchange(self.port, handshake_bytes(Host=host, Cookie=john))
        self.assertNotIn(b"HTTP/", told)
        trust = Certificate.loadPEM(public)
        # As browsers and curl do.
        offered = [b"h2", b"http/1.1"]
        options = optionsForClientTLS("localhost", trust, acceptableProtocols=offered)
        way = wrapClientTLS(options, HostnameEndpoint(reactor, "localhost", self.port))
        for origin, status in (
            (f"http://{host}", 403),  # an attacker in between can forge such a page
            ("https://localhost", 403),
            (f"https://{host}", 101),
        ):
            target = "/ws/foobar?subscribe-user"
            handshake = handshake_bytes(target, Host=host, Cookie=john, Origin=origin)
            visit = yield connectProtocol(way, Visit(handshake))
            answer = yield visit.ended.addTimeout(TIMEOUT, reactor)
            self.assertEqual(status_of(answer), status, origin)
            if status == 101:
                self.assertEqual(visit.negotiated, b"http/1.1")
