"""The options of ``twistd ws4redis``, and the configuration built from them and the settings.

Most options come from the table of settings; the others are here.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from typing import Any

from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from ws4redis_tx.config.document import option_help
from ws4redis_tx.config.fields_alone import DEFAULT_LISTEN
from ws4redis_tx.config.kinds import Count, Flag, Names
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.config.setting import Setting
from ws4redis_tx.config.table import BY_FIELD, BY_NAME
from ws4redis_tx.core.errors import BrokerUnavailable, ConfigError
from ws4redis_tx.system.announcements import take_pidfile, versions
from ws4redis_tx.system.launch import Inheritance, Launch
from ws4redis_tx.twistd.embedded_redis import find_server, free_port, must_start
from ws4redis_tx.twistd.log_output import take_over
from ws4redis_tx.twistd.mistakes import (
    FROM_ENVIRONMENT,
    explained,
    in_environment,
    shared_settings,
)


class Options(UsageOptions):
    """The options of the command line, which override the settings."""

    synopsis = "[options]"
    longdesc = (
        "Serves websockets that receive what Django, or anybody, publishes through Redis. With "
        "--settings it knows the visitors of a Django site; without, it serves anonymous "
        "broadcasts."
    )
    optParameters = [
        ["settings", None, None, "Django settings module (default: $DJANGO_SETTINGS_MODULE)."],
        [
            "drain",
            None,
            "5",
            "Seconds over which SIGTERM closes the clients; a second SIGTERM ends at once.",
        ],
        ["workers", None, "1", "Processes that serve the same sockets, to use several CPUs."],
        ["inherit", None, None, "Internal: --workers passes it to the processes that it starts."],
    ]
    optFlags = [
        ["embedded-redis", None, "Start a bundled Redis, in memory, on a free loopback port."],
        ["serve-django", None, "Also serve the Django site on the same port, for development."],
    ]

    compData: Any = None
    parent: Any = None
    """The options of ``twistd`` itself, if it runs this."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, Any] = {}
        """The values of the options that were given, by the names of their fields."""

    def parseOptions(self, options: Any = None) -> None:
        # Workers get the same options and the same folder, since an option may name a path.
        self["arguments"] = sys.argv[1:] if options is None else list(options)
        self["processes"] = None
        self["inheritance"] = Inheritance.from_environment()
        self["launch"] = Launch.of_this_process()
        self["doubts"] = []
        try:
            super().parseOptions(options)
        except UsageError as error:
            text = explained(str(error), _written(self), _written(self.parent))
            if self.parent is None:
                raise UsageError(text) from error
            # twistd would print the whole usage first, and the error after it.
            raise SystemExit(
                f"twistd ws4redis: {text}\nAll options: twistd ws4redis --help"
            ) from error

    def parseArgs(self, *arguments: str) -> None:
        if arguments:  # not shown: it may be a URL with a password
            raise UsageError(
                "The command takes options only, such as --settings mysite.settings, and an "
                "argument among them begins with no dash."
            )

    def opt_version(self) -> None:
        """Print the versions of ws4redis_tx and of what it stands on, and exit."""
        print(versions())
        sys.exit()

    def postOptions(self) -> None:
        """Build the configuration. Reports every mistake, before anything starts."""
        sys.path.insert(0, os.getcwd())  # as Django's own commands do
        self["twistd"] = {} if self.parent is None else self.parent
        if self.parent is not None:
            take_over(self.parent)
        replaces = self["inheritance"] is not None
        self["own-pidfile"] = take_pidfile(self["twistd"], self["launch"].arguments, replaces)
        if self["inherit"] is not None:  # a worker uses the sockets and the Redis of its parent
            self["inherit"] = [int(number) for number in self["inherit"].split(",")]
            self["processes"] = self["workers"]  # that share the log
            self["workers"], self["embedded-redis"] = "1", 0
        if "redis" in self.given and self["embedded-redis"]:
            raise UsageError("Use either --redis or --embedded-redis, not both.")
        settings = self["settings"] or os.environ.get("DJANGO_SETTINGS_MODULE")
        if self["serve-django"] and not settings:
            raise UsageError(
                "--serve-django needs a Django site. Add --settings MODULE, such as --settings "
                "mysite.settings."
            )
        try:
            self["drain"] = _drain(self["drain"])
            workers = Count()
            self["workers"] = workers.check("--workers", workers.read("--workers", self["workers"]))
            self["processes"] = int(self["processes"] or self["workers"])
            if self["embedded-redis"]:
                find_server()
                self.given["redis"] = f"redis://127.0.0.1:{self._redis_port()}/0"
            self["config"] = (
                _django_config(settings, self) if settings else _plain_config(self.given)
            )
            self["doubts"] += in_environment(bool(settings))
            if self["config"].redis.embedded and self["inherit"] is None:
                self["embedded-redis"] = self._starts_redis()
        except ConfigError as error:
            raise UsageError(str(error)) from error

    def _redis_port(self) -> int:
        redis = self["inheritance"] and self["inheritance"].redis
        return redis.port if redis else free_port()

    def _starts_redis(self) -> bool:
        """Whether this process starts, or has inherited, the Redis at an embedded:// address."""
        inheritance: Inheritance | None = self["inheritance"]
        if inheritance is not None:
            return inheritance.redis is not None
        return must_start(self["config"].redis)

    def as_written(self, error: ConfigError) -> ConfigError:
        """The error under the option's name, if the value came from an option."""
        for field in self.given:
            row = BY_FIELD[field]
            if error.setting in (row.name, row.field):
                return ConfigError(f"--{row.option}", error.problem, error.remedy)
        return error


def _add_option(name: str, text: str, handler: Callable[..., None]) -> None:
    """Add a method, since Twisted looks for options among the methods of the class."""
    handler.__doc__ = text
    setattr(Options, f"opt_{name.replace('-', '_')}", handler)


def _add_switch(row: Setting) -> None:
    def on(options: Options) -> None:
        options.given[row.field] = True

    def off(options: Options) -> None:
        options.given[row.field] = False

    _add_option(row.option, option_help(row), on)
    _add_option(f"no-{row.option}", f"Turn --{row.option} off, whatever the settings say.", off)


def _add_parameter(row: Setting) -> None:
    def take(options: Options, text: str) -> None:
        try:
            value = row.from_option(text)
        except ConfigError as error:
            raise UsageError(str(error)) from error
        if isinstance(row.kind, Names):
            value = (*options.given.get(row.field, ()), *value)
        options.given[row.field] = value

    _add_option(row.option, option_help(row), take)


for _row in BY_FIELD.values():
    if _row.option:
        _add_switch(_row) if isinstance(_row.kind, Flag) else _add_parameter(_row)


def _drain(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ConfigError("--drain", f"is {text!r}", "Write a number of seconds, such as 5.")
    return seconds


def _plain_config(given: dict[str, Any]) -> ServerConfig:
    values = {BY_NAME[name].field: os.environ.get(name) for name in FROM_ENVIRONMENT} | given
    return ServerConfig(
        **{field: BY_FIELD[field].from_django(value) for field, value in values.items()}
    )


def _django_config(module: str, options: Options) -> ServerConfig:
    """Set up Django, with the options overriding its settings.

    The site's views, which may run in this process, then publish where this server listens, and its
    pages name this server's path. Django sets the process's time zone, which it needs; the log's
    times carry their offset.
    """
    os.environ["DJANGO_SETTINGS_MODULE"] = module
    import django
    from django.conf import settings

    given = options.given
    try:
        options["doubts"] += shared_settings(options, given)
        for field, value in given.items():
            if name := BY_FIELD[field].name:
                setattr(settings, name, value)
        django.setup()
    except BrokerUnavailable as error:
        raise UsageError(
            f"An application of {module!r} publishes when it is ready, and that failed: {error} "
            "An embedded Redis starts only after Django."
        ) from error
    except Exception as error:  # a settings module may raise anything
        raise UsageError(
            f"The Django settings {module!r} cannot be loaded: {type(error).__name__}: {error}. "
            "Name a module that can be imported from the current folder, such as --settings "
            "mysite.settings."
        ) from error
    from ws4redis_tx.config import django_settings

    problems = django_settings.problems()
    if problems:
        raise UsageError("\n".join(map(str, problems)))
    options["doubts"] += [error for _, error in django_settings.doubts()]
    return django_settings.server_config(listen=given.get("listen", DEFAULT_LISTEN))


def _written(options: Any) -> list[str]:
    """The names of the options, as they are written."""
    if options is None:
        return []
    return [f"--{name.rstrip('=')}" for name in options.longOpt] + [
        f"-{letter}" for letter in options.shortOpt if letter != ":"
    ]
