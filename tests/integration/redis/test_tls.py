"""``rediss://`` checks the certificate and the host name against a given authority."""

from __future__ import annotations

import ipaddress
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory
from cryptography import x509
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS

from tests.support import TIMEOUT
from tests.support.certificates import TlsTestCase, make_certificate
from tests.support.clients import Client
from tests.support.programs import write_file
from tests.support.servers import ServerTestCase
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.errors import ConfigError


class TlsTests(TlsTestCase):
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

    @inlineCallbacks
    def test_of_several_authorities_in_the_file_each_counts(self) -> Any:
        yield self.open_door(x509.DNSName("localhost"))
        other, _ = make_certificate(x509.DNSName("other"))
        with open(self.ca_file) as file:
            bundle = write_file(self, other + file.read())
        broker = self.broker(f"rediss://localhost:{self.port}/0?ssl_ca_certs={bundle}")
        yield broker.when_available().addTimeout(TIMEOUT, reactor)

    @inlineCallbacks
    def test_a_server_that_asks_for_a_certificate_gets_ours(self) -> Any:
        mine, both = make_certificate(x509.DNSName("client"))
        yield self.open_door(x509.DNSName("localhost"), lets_in=mine)
        url = f"rediss://localhost:{self.port}/0?ssl_ca_certs={self.ca_file}"
        complaint = self.complaint()
        stranger = self.broker(url)
        yield complaint
        self.assertFalse(stranger.available)
        for files in (
            f"ssl_certfile={write_file(self, both)}",
            f"ssl_certfile={write_file(self, mine)}"
            f"&ssl_keyfile={write_file(self, both.removeprefix(mine))}",
        ):
            broker = self.broker(f"{url}&{files}")
            yield broker.when_available().addTimeout(TIMEOUT, reactor)

    @inlineCallbacks
    def test_an_acl_user_logs_in_over_it(self) -> Any:
        yield self.open_door(x509.DNSName("localhost"))
        self.redis.command("ACL", "SETUSER", "web", "on", ">s3cret", "~*", "&*", "+@all")
        self.addCleanup(self.redis.command, "ACL", "DELUSER", "web")
        url = f"localhost:{self.port}/0?ssl_ca_certs={self.ca_file}"
        broker = self.broker(f"rediss://web:s3cret@{url}")
        yield broker.when_available().addTimeout(TIMEOUT, reactor)
        self.assertIn(b"user=web", self.redis.command("CLIENT", "LIST"))
        complaint = self.complaint()
        self.broker(f"rediss://web:wr0ng@{url}")
        self.assertNotIn("wr0ng", (yield complaint))

    def test_files_that_cannot_be_used_are_named_before_anything_starts(self) -> None:
        public, _ = make_certificate(x509.DNSName("localhost"))
        no_certificate = write_file(self, "nothing")
        for query, said in (
            ("ssl_ca_certs=/no/such/file", "/no/such/file"),
            (f"ssl_ca_certs={no_certificate}", "ssl_ca_certs"),
            (f"ssl_certfile={write_file(self, public)}", "ssl_keyfile"),
            (f"ssl_certfile={no_certificate}", "ssl_certfile"),
        ):
            for scheme in ("rediss://localhost/0?", "sentinel://localhost/mymaster/0?ssl=true&"):
                error = self.assertRaises(ConfigError, self.broker, scheme + query)
                self.assertIn(said, str(error))


class _Sentinel(Protocol):
    """Tells clients with the password where the master is."""

    known = False

    def dataReceived(self, data: bytes) -> None:
        if b"AUTH" in data and b"s3cret" in data:
            self.known = True
            self.transport.write(b"+OK\r\n")
        elif not self.known:
            self.transport.write(b"-NOAUTH Authentication required.\r\n")
        else:
            port = b"%d" % self.factory.master
            self.transport.write(b"*2\r\n$9\r\nlocalhost\r\n$%d\r\n%s\r\n" % (len(port), port))


class SentinelTests(TlsTestCase):
    """Sentinel and master behind TLS, with passwords of their own."""

    @inlineCallbacks
    def start(self) -> Any:
        yield self.open_door(x509.DNSName("localhost"))
        public, both = make_certificate(x509.DNSName("localhost"))
        factory = Factory.forProtocol(_Sentinel)
        factory.master = self.port
        port = yield self.listen(factory, PrivateCertificate.loadPEM(both).options())
        with open(self.ca_file) as file:
            bundle = write_file(self, public + file.read())
        return f"sentinel://localhost:{port}/mymaster/0?ssl=true&ssl_ca_certs={bundle}"

    @inlineCallbacks
    def test_both_are_spoken_to_over_tls(self) -> Any:
        url = yield self.start()
        broker = self.broker(f"{url}&sentinel_password=s3cret")
        yield broker.when_available().addTimeout(TIMEOUT, reactor)

    @inlineCallbacks
    def test_a_wrong_password_is_said_without_it(self) -> Any:
        url = yield self.start()
        complaint = self.complaint()
        self.broker(f"{url}&sentinel_password=wr0ng")
        said = yield complaint
        self.assertIn("NOAUTH", said)
        self.assertNotIn("wr0ng", said)


class ListeningTests(ServerTestCase):
    """``ssl:`` endpoints: the server itself speaks ``wss://``."""

    @inlineCallbacks
    def test_a_browser_connects_by_wss_and_only_from_pages_that_came_by_https(self) -> Any:
        public, both = make_certificate(x509.DNSName("localhost"))
        file = write_file(self, both)
        yield self.start_server(
            ServerConfig(
                redis=self.redis.address,
                listen=(f"ssl:0:interface=127.0.0.1:privateKey={file}:certKey={file}",),
            )
        )
        options = optionsForClientTLS("localhost", trustRoot=Certificate.loadPEM(public))
        endpoint = wrapClientTLS(options, HostnameEndpoint(reactor, "localhost", self.port))
        host = f"localhost:{self.port}"

        def connect(scheme: str) -> Any:
            factory = WebSocketClientFactory(
                f"wss://{host}/ws/foobar?subscribe-broadcast",
                origin=f"{scheme}://{host}",
                reactor=reactor,
            )
            factory.noisy = False
            factory.protocol = Client
            return endpoint.connect(factory)

        client = yield connect("https")
        yield client.opened.addTimeout(TIMEOUT, reactor)
        self.redis.command("PUBLISH", "broadcast:foobar", "hello")
        self.assertEqual((yield client.next()), "hello")
        client.sendClose(1000)
        yield client.closed
        refused = yield connect("http")
        error = yield self.assertFailure(refused.opened, ConnectionError)
        self.assertIn("403", str(error))
