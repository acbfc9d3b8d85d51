"""Publishing in the servers and workers that run Django, as they are started in production."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import django
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from tests.support import ROOT
from tests.support.django import SETTINGS, environment
from tests.support.programs import Program
from tests.support.publishers import needs, run_publisher
from tests.support.redis import RedisServer, shared_redis
from tests.support.sizes import FULL
from ws4redis_tx.twistd.embedded_redis import free_port

WSGI = "tests.projects.wsgi_preloaded:application"
ASGI = "tests.projects.asgi_publisher:application"


def needs_full_size() -> None:
    if not FULL:
        raise SkipTest("make test-all runs this one")


class ProgramTestCase(TestCase):
    timeout = 120

    def start(self, *command: str, **variables: str) -> Program:
        """Start a program in a session of its own. It ends with the test, and so do the processes
        that it started. uWSGI sometimes signals its whole process group.
        """
        program = Program("setsid", *command, **variables)
        self.addCleanup(program.end)
        self.addCleanup(self.kill_session, program.pid)
        return program

    def kill_session(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


class ServerTestCase(ProgramTestCase):
    @inlineCallbacks
    def assert_publishes(
        self, ready: str, *command: str, facility: str, port: int | None = None
    ) -> Any:
        """Start a server with ``{port}`` in its command. Each request publishes its path."""
        redis = RedisServer()
        self.addCleanup(redis.stop)
        port = port or free_port()
        server = self.start(
            *(part.replace("{port}", str(port)) for part in command),
            WS4REDIS_CONNECTION=str(redis.address),
            **environment(),
        )
        yield server.wait_for(ready)
        for number in range(6):
            yield self.get(f"http://127.0.0.1:{port}/{number}", server)
            self.assertEqual(redis.command("GET", f"broadcast:{facility}"), b"/%d" % number)
        yield server.signal_and_wait("INT")

    @inlineCallbacks
    def get(self, url: str, server: Program) -> Any:
        """Some servers say that they are ready before they listen."""
        while True:
            try:
                yield deferToThread(lambda: urllib.request.urlopen(url, timeout=20).read())
                return
            except urllib.error.URLError as error:
                if (
                    not isinstance(error.reason, ConnectionRefusedError)
                    or server.status is not None
                ):
                    self.fail(f"{error}\n{server.printed}")
            yield deferLater(reactor, 0.05)


class WsgiTests(ServerTestCase):
    """The application publishes when it is loaded, too."""

    def gunicorn(self, *options: str) -> Any:
        return self.assert_publishes(
            "Booting worker",
            *(sys.executable, "-m", "gunicorn", "--bind=127.0.0.1:{port}"),
            *options,
            WSGI,
            facility="preloaded",
        )

    def test_gunicorn_with_threads(self) -> Any:
        return self.gunicorn("--worker-class=gthread", "--threads=4")

    def test_gunicorn_with_gevent(self) -> Any:
        needs("gevent")
        return self.gunicorn("--worker-class=gevent")

    def test_gunicorn_with_gevent_that_loads_the_application_before_it_forks(self) -> Any:
        needs("gevent")
        return self.gunicorn("--worker-class=gevent", "--preload")

    def test_gunicorn_with_single_threads(self) -> Any:
        needs_full_size()
        return self.gunicorn("--worker-class=sync")

    def uwsgi(self, *options: str) -> Any:
        program = shutil.which("uwsgi", path=Path(sys.executable).parent)
        if program is None:
            raise SkipTest("uwsgi is not installed: pip install uwsgi")
        return self.assert_publishes(
            "(?s)spawned uWSGI worker 2",
            *(program, "--http-socket=127.0.0.1:{port}", "--master", "--processes=2"),
            *("--die-on-term", f"--home={sys.prefix}", "--enable-threads", "--need-app"),
            *options,
            f"--module={WSGI}",
            facility="preloaded",
        )

    def test_uwsgi_that_loads_the_application_before_it_forks(self) -> Any:
        # Without these hooks it forks while another thread may hold Python's lock.
        return self.uwsgi("--py-call-uwsgi-fork-hooks")

    def test_uwsgi_whose_workers_load_the_application(self) -> Any:
        needs_full_size()
        return self.uwsgi("--lazy-apps")


class ModWsgiTests(ServerTestCase):
    """Apache runs each application in a sub-interpreter by default, after the main interpreter."""

    CONFIGURATION = """
ServerRoot {folder}
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {folder}/pid
DefaultRuntimeDir {folder}
ErrorLog /dev/stderr
User www-data
Group www-data
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule wsgi_module {modules}/mod_wsgi.so
{options}
WSGIPythonPath {path}
WSGIScriptAlias / {root}/tests/projects/wsgi_served.py
<Location />
Require all granted
</Location>
"""

    def apache(self, options: str) -> Any:
        program = shutil.which("apache2", path="/usr/sbin")
        version = f"3.{sys.version_info.minor}"
        module = Path(f"/usr/lib/apache2/modules/mod_wsgi.so-{version}")
        if program is None or not module.exists():
            raise SkipTest(f"mod_wsgi for Python {version} is not installed: Debian has a package")
        folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        self.addCleanup(shutil.rmtree, folder)
        os.chmod(folder, 0o755)  # Apache changes its user
        port = free_port()
        path = f"{ROOT}:{Path(django.__file__).parents[1]}"
        Path(folder, "httpd.conf").write_text(
            self.CONFIGURATION.format(
                folder=folder,
                port=port,
                modules=module.parent,
                options=options.replace("{path}", path),
                path=path,
                root=ROOT,
            )
        )
        return self.assert_publishes(
            "resuming normal operations",
            *(program, "-f", f"{folder}/httpd.conf", "-D", "FOREGROUND"),
            facility="served",
            port=port,
        )

    def test_the_default_interpreter(self) -> Any:
        needs_full_size()
        return self.apache("")

    def test_a_daemon_process(self) -> Any:
        needs_full_size()
        return self.apache(
            "WSGIDaemonProcess site threads=4 python-path={path}\nWSGIProcessGroup site"
        )

    def test_the_main_interpreter(self) -> Any:
        needs_full_size()
        return self.apache("WSGIApplicationGroup %{GLOBAL}")


class AsgiTests(ServerTestCase):
    def test_uvicorn(self) -> Any:
        needs("uvicorn")
        return self.assert_publishes(
            "Uvicorn running", sys.executable, "-m", "uvicorn", "--port={port}", ASGI,
            facility="served",
        )  # fmt: skip

    def test_hypercorn(self) -> Any:
        needs("hypercorn")
        needs_full_size()
        return self.assert_publishes(
            "Running on", sys.executable, "-m", "hypercorn", "--bind=127.0.0.1:{port}", ASGI,
            facility="served",
        )  # fmt: skip

    def test_granian(self) -> Any:
        needs("granian")
        needs_full_size()
        return self.assert_publishes(
            "Started worker-1", sys.executable, "-m", "granian", "--interface=asgi",
            "--port={port}", ASGI, facility="served",
        )  # fmt: skip


class CeleryTests(ProgramTestCase):
    @inlineCallbacks
    def celery(self, pool: str) -> Any:
        needs("celery")
        redis, folder = shared_redis(), tempfile.mkdtemp(prefix="ws4redis-tx-")
        self.addCleanup(shutil.rmtree, folder)
        variables = {
            "CELERY_FOLDER": folder,
            "DJANGO_SETTINGS_MODULE": SETTINGS,
            "WS4REDIS_CONNECTION": str(redis.address),
            **environment(),
        }
        celery = (sys.executable, "-m", "celery", "--app=tests.projects.celery_tasks")
        worker = self.start(
            *celery, "worker", f"--pool={pool}", "--concurrency=2", "--loglevel=INFO",
            "--without-gossip", "--without-mingle", **variables,
        )  # fmt: skip
        yield worker.wait_for("ready.")
        for text in ("first", "second"):
            self.start(
                *celery, "call", "tests.projects.celery_tasks.publish", f'--args=["{text}"]',
                **variables,
            )  # fmt: skip
            yield worker.wait_for(f"(?s)(succeeded.*){{{1 + (text == 'second')}}}")
            self.assertEqual(redis.command("GET", "broadcast:served"), text.encode())
        yield worker.signal_and_wait("TERM")

    def test_processes(self) -> Any:
        return self.celery("prefork")

    def test_eventlet(self) -> Any:
        needs("eventlet")
        return self.celery("eventlet")

    def test_gevent(self) -> Any:
        needs_full_size()
        needs("gevent")
        return self.celery("gevent")

    def test_threads(self) -> Any:
        needs_full_size()
        return self.celery("threads")


class MultiprocessingTests(SynchronousTestCase):
    def test_each_way_to_start_from_the_main_thread_and_from_another(self) -> None:
        redis = shared_redis()
        folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        self.addCleanup(shutil.rmtree, folder)
        Path(folder, "started.py").write_text(
            "import django; django.setup()\n"
            "from ws4redis_tx.publisher import RedisPublisher\n"
            "def publish(text):\n"
            "    RedisPublisher(facility=text, broadcast=True).publish_message(text)\n"
        )
        run_publisher(
            f"import multiprocessing, sys, threading; sys.path.insert(0, {folder!r})\n"
            "from started import publish\n"
            "def start(method, text):\n"
            "    context = multiprocessing.get_context(method)\n"
            "    process = context.Process(target=publish, args=(text,))\n"
            "    process.start(); process.join(); assert not process.exitcode\n"
            "for time in 'before', 'after':\n"
            "    for method in 'fork', 'spawn', 'forkserver':\n"
            "        start(method, f'{method} {time}')\n"
            "        text = f'{method} {time} in a thread'\n"
            "        thread = threading.Thread(target=start, args=(method, text))\n"
            "        thread.start(); thread.join()\n"
            "    publish(time)\n",
            redis.address,
        )
        for time in ("before", "after"):
            for method in ("fork", "spawn", "forkserver"):
                for text in (f"{method} {time}", f"{method} {time} in a thread"):
                    self.assertEqual(redis.command("GET", f"broadcast:{text}"), text.encode())
