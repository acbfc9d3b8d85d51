"""The parts of ``runserver`` that need no second process."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet.threads import deferToThread
from twisted.logger import Logger, LogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.django import set_up_django
from ws4redis_tx.core.redis_address import parse_redis_address
from ws4redis_tx.runserver import log, parent
from ws4redis_tx.runserver.sockets import bind, listen
from ws4redis_tx.threads.request_threads import RequestThreads
from ws4redis_tx.twistd.embedded_redis import must_start

set_up_django()

from ws4redis_tx.runserver import server
from ws4redis_tx.runserver.management.commands import runserver


class SocketTests(SynchronousTestCase):
    def test_a_socket_listens_when_it_is_told_to(self) -> None:
        with bind("127.0.0.1", 0, False) as bound:
            address = bound.getsockname()
            self.assertRaises(ConnectionRefusedError, socket.create_connection, address)
            listen(bound)
            socket.create_connection(address).close()

    def test_an_address_that_cannot_be_had_is_one_sentence(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            error = self.assertRaises(OSError, bind, "127.0.0.1", port, False)
            self.assertEqual(
                str(error),
                f"127.0.0.1:{port} is in use already. Stop the other server there, or choose "
                f"another port: runserver {port + 1}.",
            )
        error = self.assertRaises(OSError, bind, "192.0.2.1", 8000, False)
        self.assertIn("192.0.2.1:8000 cannot be listened on: ", str(error))
        error = self.assertRaises(OSError, bind, "127.0.0.1", 80000, False)
        self.assertIn("127.0.0.1:80000 cannot be listened on: ", str(error))
        refusal = PermissionError(errno.EACCES, "Permission denied")
        with mock.patch.object(socket.socket, "bind", side_effect=refusal):
            error = self.assertRaises(OSError, bind, "127.0.0.1", 80, False)
        self.assertEqual(
            str(error), "You may not listen on 127.0.0.1:80. Choose a port above 1023."
        )

    def test_two_that_are_bound_do_not_both_listen(self) -> None:
        with bind("127.0.0.1", 0, False) as first:
            port = first.getsockname()[1]
            with bind("127.0.0.1", port, False) as second:
                listen(first)
                error = self.assertRaises(OSError, listen, second)
                self.assertIn("is in use already", str(error))


class InheritanceTests(SynchronousTestCase):
    def test_a_child_takes_what_it_was_given_and_passes_nothing_on(self) -> None:
        self.assertIsNone(parent.take_inherited())
        with bind("127.0.0.1", 0, False) as bound:
            read, write = os.pipe()
            descriptor = os.dup(bound.fileno())
            for each in (descriptor, read):
                os.set_inheritable(each, True)
            with mock.patch.dict(os.environ, WS4REDIS_TX_RUNSERVER=f"{descriptor},{read}"):
                taken = parent.take_inherited()
                assert taken is not None
                self.assertNotIn("WS4REDIS_TX_RUNSERVER", os.environ)
            with taken.listening as inherited:
                self.assertEqual(inherited.getsockname(), bound.getsockname())
                self.assertFalse(inherited.get_inheritable())
            self.assertFalse(os.get_inheritable(taken.lifeline))
            os.close(read)
            os.close(write)


class TimeTests(SynchronousTestCase):
    def test_a_stop_and_the_exit_take_two_seconds_at_most(self) -> None:
        self.assertLess(server.STOP_TIMEOUT + runserver.EXIT_TIMEOUT, 2)
        self.assertLess(runserver.EXIT_TIMEOUT + server.STOP_TIMEOUT, parent.END_TIMEOUT)

    def test_any_number_of_requests_may_be_under_way(self) -> None:
        threads = RequestThreads(None, server.MOST_REQUESTS, lambda: None)
        threads._busy = 1_000_000
        self.assertTrue(threads.room)


class SignalTests(TestCase):
    def test_signals_are_handled_in_the_main_thread_alone(self) -> Any:
        with mock.patch("signal.signal") as handled:
            runserver.end_at_sigterm()
            handled.assert_called_once()

        def elsewhere() -> None:
            self.assertIsNot(threading.current_thread(), threading.main_thread())
            with mock.patch("signal.signal") as handled:
                runserver.end_at_sigterm()
                handled.assert_not_called()

        return deferToThread(elsewhere)


class NextCommandTests(SynchronousTestCase):
    def test_the_command_of_daphne_which_would_start_daphne_is_skipped(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
        self.addCleanup(shutil.rmtree, folder)
        (folder / "management" / "commands").mkdir(parents=True)
        (folder / "management" / "commands" / "runserver.py").touch()
        names = ("ws4redis_tx.runserver", "daphne", "another", "django.contrib.staticfiles")
        configs = [mock.Mock(path=str(folder)) for _ in names]
        for config, name in zip(configs, names, strict=True):
            config.name = name
        with (
            mock.patch.object(runserver.apps, "get_app_configs", return_value=configs),
            mock.patch.object(runserver, "import_module") as imported,
        ):
            found = runserver.next_command()
        imported.assert_called_once_with("another.management.commands.runserver")
        self.assertIs(found, imported.return_value.Command)


class LogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.records: list[logging.LogRecord] = []
        handler = logging.Handler()
        handler.emit = self.records.append  # type: ignore[method-assign]
        logger = logging.getLogger("django.server")
        level, propagate = logger.level, logger.propagate
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        self.addCleanup(logger.removeHandler, handler)
        self.addCleanup(logger.setLevel, level)
        self.addCleanup(setattr, logger, "propagate", propagate)

    def event(self, namespace: str, method: str, text: str, **fields: Any) -> None:
        observed: Any = log.observe
        publisher = LogPublisher(observed)
        getattr(Logger(namespace, observer=publisher), method)(text, **fields)

    def test_a_websocket_is_a_short_line(self) -> None:
        ended = {
            "user": "'mary'", "facility": "'news'", "rights": "subscribe-user", "peer": "'::1'",
            "seconds": 12.34, "sent": 5, "received": 0, "dropped": "", "code": 1001,
            "by": "client", "reason": "no reason",
        }  # fmt: skip
        self.event("ws4redis_tx.sessions.log", "info", "A websocket ended", **ended)
        self.event("ws4redis_tx.sessions.log", "info", "A web…", **{**ended, "user": "None"})
        line = "Websocket 'news' closed by the client with 1001 after 12.3 s: 5 sent, 0 received"
        self.assertEqual(
            [each.getMessage() for each in self.records], [f"{line}, user 'mary'", line]
        )

    def test_refusals_and_warnings_are_shown_and_what_others_log_is_not(self) -> None:
        ours = "ws4redis_tx.sessions.log"
        self.event(ours, "info", "Refused a websocket with {status}: {why}", status=403, why="no")
        self.event(ours, "warn", "Redis is gone")
        self.event(ours, "debug", "not this")
        self.event("twisted.internet", "info", "nor this")
        found = [(each.levelname, each.getMessage()) for each in self.records]
        self.assertEqual(
            found,
            [("INFO", "Refused a websocket with 403: no"), ("WARNING", "Redis is gone")],
        )
        self.assertEqual(vars(self.records[0])["status_code"], 403)

    def test_a_warning_of_ours_is_not_shown_twice(self) -> None:
        record = logging.LogRecord("twisted", logging.WARNING, "", 0, "", (), None)
        self.assertTrue(log.is_not_ours(record))
        record.msg = mock.Mock(event={"log_namespace": "ws4redis_tx.redis"})
        self.assertFalse(log.is_not_ours(record))
        record.msg = mock.Mock(event={"log_namespace": "twisted.web"})
        self.assertTrue(log.is_not_ours(record))

    def test_a_request_is_a_line_as_django_writes_it(self) -> None:
        for status, level in ((200, "INFO"), (404, "WARNING"), (500, "ERROR")):
            request = mock.Mock(
                method=b"GET", uri=b"/a\x1b[31m?b", clientproto=b"HTTP/1.1", code=status,
                sentLength=7,
            )  # fmt: skip
            log.log_request(request)
            record = self.records.pop()
            self.assertEqual(record.getMessage(), f'"GET /a\\x1b[31m?b HTTP/1.1" {status} 7', level)
            self.assertEqual(record.levelname, level)
            self.assertEqual(vars(record)["status_code"], status)
            self.assertRegex(vars(record)["server_time"], r"^\d\d/\w{3}/\d{4} \d\d:\d\d:\d\d$")


class EmbeddedTests(SynchronousTestCase):
    def test_a_server_is_started_where_none_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            address = parse_redis_address(f"embedded://localhost:{port}")
            self.assertFalse(must_start(address))
        self.assertTrue(must_start(address))
        self.assertFalse(must_start(parse_redis_address(f"redis://localhost:{port}")))
