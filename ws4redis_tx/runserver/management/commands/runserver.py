"""``manage.py runserver``: the next application's command, with our server and our parent."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from django.apps import apps
from django.core.management import CommandError, find_commands
from django.core.management.commands.runserver import Command as DjangosCommand

from ws4redis_tx.config import django_settings
from ws4redis_tx.core.errors import ConfigError, WS4RedisError
from ws4redis_tx.runserver.checks import APP
from ws4redis_tx.runserver.parent import Inherited, supervise, take_inherited
from ws4redis_tx.runserver.server import DevelopmentServer
from ws4redis_tx.runserver.sockets import bind
from ws4redis_tx.system.programs import Program
from ws4redis_tx.twistd.embedded_redis import find_server, must_start, server_command

# Applications whose command runs another server than the one that it is told to run.
_OWN_SERVERS = ("daphne",)

EXIT_TIMEOUT = 0.4
"""Seconds that the interpreter may take to exit, whatever threads it still has."""


def next_command() -> type[DjangosCommand]:
    """The command that ``runserver`` would be without our application."""
    configs = list(apps.get_app_configs())
    names = [config.name for config in configs]
    ours = names.index(APP) if APP in names else -1
    for config in configs[ours + 1 :]:
        folder = os.path.join(config.path, "management")
        if config.name not in _OWN_SERVERS and "runserver" in find_commands(folder):
            module = import_module(f"{config.name}.management.commands.runserver")
            found: type[DjangosCommand] = module.Command
            return found
    return DjangosCommand


_Next: Any = next_command()


class Command(_Next):  # type: ignore[misc]
    """Has no options of its own: Django loses them when the code is broken at the start."""

    help = "Starts a development server for the site and its websockets."

    server_cls = DevelopmentServer

    def run(self, **options: Any) -> None:
        if not options["use_threading"]:
            self.stderr.write("--nothreading has no effect: each request has its own thread.")
        inherited = take_inherited()
        if inherited is not None:
            self._run_child(inherited, options)
        elif not options["use_reloader"]:
            self._run_alone(options)
        elif os.name == "posix":
            self._run_parent()
        else:  # a child cannot inherit the socket, so it binds its own
            super().run(**options)

    def _run_parent(self) -> None:
        end_at_sigterm()
        try:
            with bind(self.addr, int(self.port), self.use_ipv6) as listening, self._redis():
                sys.exit(supervise(listening))
        except OSError as error:
            self.stderr.write(f"Error: {error}")
            sys.exit(1)
        except KeyboardInterrupt:
            pass  # the status is 0, as of Django's own

    def _run_child(self, inherited: Inherited, options: dict[str, Any]) -> None:
        DevelopmentServer.inherited = inherited.listening
        inherited.end_with_parent()
        self._run_here(options)

    def _run_alone(self, options: dict[str, Any]) -> None:
        end_at_sigterm()
        with self._redis():
            self._run_here(options)

    def _run_here(self, options: dict[str, Any]) -> None:
        status: object = 0
        try:
            super().run(**options)
        except SystemExit as end:
            status = end.code
            raise
        finally:
            if _in_main_thread():  # it ends already
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_IGN)
            server = DevelopmentServer.running
            if server is not None:
                server.stop()
                exit_in_time(status if isinstance(status, int) else int(bool(status)))
            if _in_main_thread():
                signal.signal(signal.SIGINT, signal.SIG_DFL)

    @contextlib.contextmanager
    def _redis(self) -> Iterator[None]:
        """Within the context, a Redis runs at an ``embedded://`` address."""
        try:
            program = self._start_redis()
        except WS4RedisError as error:
            raise CommandError(str(error)) from error
        try:
            yield
        finally:
            if program is not None:
                program.stop()

    def _start_redis(self) -> Program | None:
        try:
            address = django_settings.get_redis_address()
        except ConfigError:
            return None  # the child's system checks say so
        if not must_start(address):
            return None
        command = server_command(find_server(), address.port)
        program = Program(command, "Ready to accept connections")
        self.stdout.write(f"Started Redis at {address}, in memory. It ends with this server.")
        return program

    def on_bind(self, server_port: int) -> None:
        super().on_bind(server_port)
        host = f"[{self.addr}]" if self._raw_ipv6 else "0.0.0.0" if self.addr == "0" else self.addr
        path, redis = django_settings.get("WEBSOCKET_URL"), django_settings.get_redis_address()
        self.stdout.write(f"Websockets at ws://{host}:{server_port}{path}, Redis at {redis}")
        server = DevelopmentServer.running
        if server is not None and not server.redis_available:
            text = f"Redis at {redis} does not answer: websockets get a 503 until it does."
            if redis.embedded:
                text += " If WS4REDIS_CONNECTION has changed, start runserver anew."
            self.stderr.write(text)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def end_at_sigterm() -> None:
    """As Django's reloader does. Python takes handlers of signals only in the main thread."""
    if _in_main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def exit_in_time(status: int) -> None:
    """End the process with ``status`` when the interpreter takes too long to exit. It waits for the
    threads of thread pools, and one that collects an asynchronous stream never ends.
    """
    exiting = threading.Event()

    def watch() -> None:
        exiting.wait()
        time.sleep(EXIT_TIMEOUT)
        for each in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                each.flush()
        os._exit(status)

    threading.Thread(target=watch, name="ws4redis-exit", daemon=True).start()
    # These functions are called before the pools are waited for, and atexit's after that.
    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        register(exiting.set)
