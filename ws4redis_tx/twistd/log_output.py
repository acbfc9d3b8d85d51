"""Where the log of ``twistd ws4redis`` goes: standard output, a file, syslog, or a worker's parent.

Nobody who logs waits for the output. A thread writes the lines (``log_writer``). While the output
takes none, because its reader has stalled or its disk hangs, a bounded number of bytes waits.
Further lines are dropped, and when the output takes lines again, a line says how many.

``twistd`` opens the log before it daemonises, and no thread survives that. So ``begin`` is called
when the service starts; until then the lines wait.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.logger import (
    LegacyLogObserverWrapper,
    Logger,
    LogLevel,
    formatEventAsClassicLogText,
)
from twisted.python.logfile import LogFile

from ws4redis_tx.system.log_writer import LogWriter, write_all
from ws4redis_tx.twistd.log_filter import SummingObserver

MAX_TEXT = 100_000
"""Characters of one event. The rest is cut off."""

FILE_SIZE, OLD_FILES = 10_000_000, 9
"""Bytes after which a log file is rotated, and the number of rotated files that are kept."""

_log = Logger()


@dataclass(frozen=True, slots=True)
class LogOutput:
    """The process's log: its writer, and its file, if it has one."""

    writer: LogWriter
    file: _File | None = None


def take_over(options: MutableMapping[str, Any]) -> None:
    """Have ``twistd``, which was given ``options``, log through this module. Call this when they
    have been read. A ``--logger`` of somebody's own stays in charge.

    What Django's logging writes to standard output and standard error goes into the log too. It
    would block the threads that look up visitors.
    """
    global _options
    if not options.get("logger"):
        _options = options
        options["logger"] = f"{__name__}.open_log"
    sys.stdout, sys.stderr = _CurrentStream("stdout"), _CurrentStream("stderr")


def open_log() -> Any:
    """The observer factory for ``twistd``: opens the log where its options say."""
    name, nodaemon = _options.get("logfile"), _options.get("nodaemon")
    if _options.get("syslog"):
        return _open_syslog(_options.get("prefix", ""))
    if name == "-" and not nodaemon:
        raise SystemExit("A daemon cannot log to standard output. Name a file with --logfile.")
    if name == "-" or (nodaemon and not name):
        write = partial(write_all, sys.stdout.fileno())
        return _open(write, None, sys.stdout.encoding)
    file = _File(name or "twistd.log")
    if not signal.getsignal(signal.SIGUSR1):  # as twistd itself does
        signal.signal(signal.SIGUSR1, lambda number, frame: rotate())
    return _open(file.write, file)


class _CurrentStream:
    """``sys.stdout`` or ``sys.stderr``, as it is when something is written there.

    ``twistd`` replaces both when it starts to log. Handlers of Python's logging are made before,
    and keep the stream that they find.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._first = getattr(sys, name)

    def __getattr__(self, attribute: str) -> Any:
        stream = getattr(sys, self._name)
        return getattr(self._first if stream is self else stream, attribute)


def use(output: LogOutput) -> None:
    """Make ``output`` the log of this process."""
    global _output
    _output = output
    atexit.register(output.writer.finish)


def summed_up(observer: Callable[[Any], object]) -> SummingObserver:
    """The observer of this process's log, in front of ``observer``."""
    from twisted.internet import reactor

    global _observer
    _observer = SummingObserver(observer, reactor)
    return _observer


def begin(reactor: Any) -> None:
    """Start to write, and write what waits when the reactor stops. Call this when the service
    starts: ``twistd`` forks no more.
    """
    if _output is not None:
        _output.writer.begin()
        if _observer is not None:
            reactor.addSystemEventTrigger("after", "shutdown", _observer.stop)
        reactor.addSystemEventTrigger("after", "shutdown", _output.writer.finish)


def reopen() -> None:
    """Open the log file again, because another program has moved it. Does nothing where the log is
    no file. The lines that were logged before still go to the old file. Never blocks.
    """
    if _output is not None and _output.file is not None:
        _output.writer.do(_output.file.reopen)


def rotate() -> None:
    """Begin a new log file, and keep the old one with a number. Never blocks."""
    if _output is not None and _output.file is not None:
        _output.writer.do(_output.file.rotate)


_options: MutableMapping[str, Any] = {}
_output: LogOutput | None = None
_observer: SummingObserver | None = None


def dropped_event(count: int) -> dict[str, Any]:
    """The event that says that lines were dropped."""
    return {
        "log_time": time.time(),
        "log_level": LogLevel.warn,
        "log_namespace": _log.namespace,
        "log_format": "{count} log lines were dropped, because the log's output did not take them",
        "count": count,
    }


def _open(write: Callable[[bytes], object], file: _File | None, encoding: str = "utf-8") -> Any:
    def line(event: Any) -> bytes:
        text = formatEventAsClassicLogText(event) or ""
        if len(text) > MAX_TEXT:
            text = f"{text[:MAX_TEXT]} …\n"
        return text.encode(encoding, "backslashreplace")

    writer = LogWriter(write, lambda count: line(dropped_event(count)))
    use(LogOutput(writer, file))

    def observe(event: Any) -> None:
        data = line(event)
        if data:
            writer.put(data, len(data))

    return summed_up(observe)


def _open_syslog(prefix: str) -> Any:
    from twisted.python.syslog import SyslogObserver, syslog

    observer = SyslogObserver(prefix)
    warning = syslog.LOG_WARNING

    def write(item: tuple[int, str]) -> None:
        syslog.syslog(*item)

    def notice(count: int) -> tuple[int, str]:
        event = dropped_event(count)
        text = event["log_format"].format(**event)
        return warning, f"[{_log.namespace}] {text}"

    writer = LogWriter(write, notice)
    observer.syslog = lambda priority, text: writer.put((priority, text[:MAX_TEXT]), len(text))
    use(LogOutput(writer))
    return summed_up(LegacyLogObserverWrapper(observer.emit))  # type: ignore[arg-type]


class _File:
    """A log file that is rotated. Used in the writer's thread."""

    def __init__(self, name: str) -> None:
        self._path = os.path.abspath(name)
        self._file = self._open()

    def _open(self) -> LogFile:
        file: LogFile = _AppendedFile.fromFullPath(
            self._path, rotateLength=FILE_SIZE, maxRotatedFiles=OLD_FILES
        )
        return file

    def write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except ValueError:  # a rotation failed after it had closed the file
            self._file = self._open()
            self._file.write(data)

    def rotate(self) -> None:
        self._file.rotate()

    def reopen(self) -> None:
        old = self._file
        try:
            self._file = self._open()
        except OSError as error:
            _log.error(
                "The log file cannot be opened again ({problem}); the old one is kept.",
                problem=str(error),
            )
        else:
            old.close()


class _AppendedFile(LogFile):
    """Two processes write to it while one replaces the other. No line may overwrite another."""

    def _openFile(self) -> None:  # noqa: N802, Twisted's
        super()._openFile()
        import fcntl  # POSIX alone has it, and options are read everywhere

        flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
        fcntl.fcntl(self._file, fcntl.F_SETFL, flags | os.O_APPEND)
