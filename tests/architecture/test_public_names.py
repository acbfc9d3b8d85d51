"""The names and signatures that other people's code depends on, pinned by ``public_names.txt``.

A new name there is a promise. A name that is removed or changed breaks somebody's program, and
``docs/compatibility.md`` says when that is allowed. To rewrite the file:
``python -m tests.architecture.test_public_names``.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT
from tests.support.django import set_up_django

PINNED = ROOT / "tests" / "public_names.txt"
USER_PROGRAM = ROOT / "tests" / "projects" / "user_program.py"
# mypy's; kept, so that only the first run takes long.
CACHE = ROOT / "build" / "mypy"

# The public names of modules without a public ``__all__``.
MODULES: dict[str, list[str] | None] = {
    "ws4redis_tx": ["__version__", "adisconnect", "disconnect"],
    "ws4redis_tx.service": None,
    "ws4redis_tx.publisher": None,
    "ws4redis_tx.subscriber": ["RedisSubscriber"],
    "ws4redis_tx.redis_store": None,
    "ws4redis_tx.signals": None,
    "ws4redis_tx.tickets": None,
    "ws4redis_tx.panels": None,
    "ws4redis_tx.presence": None,
    "ws4redis_tx.tokens": None,
    "ws4redis_tx.testing": None,
    "ws4redis_tx.policies": None,
    "ws4redis_tx.context_processors": ["default"],
    # All of these are in ws4redis_tx.service as well.
    "ws4redis_tx.core.admission": ["Admission", "Identity", "PlainRequest", "default_policy"],
    "ws4redis_tx.core.config": ["ServerConfig"],
    "ws4redis_tx.core.errors": ["BrokerUnavailable", "ConfigError", "Denied", "MessageRefused"],
    "ws4redis_tx.core.handshake": ["Handshake"],
    "ws4redis_tx.core.hooks": ["Closing", "NullHooks", "Refusal"],
    "ws4redis_tx.core.interfaces": ["IAuthorizer", "IBroker", "IConnection", "IHooks", "IListener"],
    "ws4redis_tx.core.redis_address": ["RedisAddress", "parse_redis_address"],
}

# Classes with methods that are only for the server. These are the public ones.
MEMBERS = {
    "RedisBroker": ["startService", "stopService"],  # and those of IBroker
    "WebSocketFactory": ["abort", "drain", "open_up"],
    "WebSocketResource": [],
    "MessagesPanel": [],
    "MemoryClient": ["close", "flush", "lose_connection", "send", "send_bytes"],
    "Publication": ["channel", "payload"],
}

# Our functions make these; users never do.
MADE = {
    "CapturedMessages", "LiveSite", "MessagesPanel", "Publication", "RedisBroker", "RedisProcess",
    "ServerProcess", "WebSocketFactory", "WebSocketResource", "WebSocketService",
}  # fmt: skip


def public_names(module: str) -> list[str]:
    names = MODULES[module]
    return sorted(import_module(module).__all__ if names is None else names)


def render() -> str:
    """All modules, names and signatures, as text."""
    set_up_django()
    seen: dict[int, str] = {}
    lines = []
    for module in MODULES:
        lines.append(f"\n{module}")
        for name in public_names(module):
            thing = getattr(import_module(module), name)
            if id(thing) in seen:
                lines.append(f"    {name} is {seen[id(thing)]}")
                continue
            if inspect.isclass(thing) or inspect.isfunction(thing):
                seen[id(thing)] = f"{module}.{name}"
            lines += [f"    {line}" for line in describe(name, thing)]
    lines.append("\nsettings")
    defaults = import_module("ws4redis_tx.config.django_settings").DEFAULTS
    lines += [f"    {name} = {value!r}" for name, value in sorted(defaults.items())]
    return "\n".join(lines).lstrip() + "\n"


def describe(name: str, thing: Any) -> list[str]:
    if inspect.isclass(thing):
        return [f"class {name}", *[f"    {line}" for line in describe_class(thing)]]
    if inspect.isfunction(thing):
        return [signature(name, thing)]
    return [name]


def describe_class(cls: type) -> list[str]:
    """The fields or constructor arguments of a class, and its own methods and properties."""
    lines = []
    if is_dataclass(cls):
        lines += [described_field(each) for each in fields(cls) if each.name[0] != "_"]
    elif cls.__name__ not in MADE and not getattr(cls, "_is_protocol", False):
        ours = [each for each in cls.__mro__ if each.__module__.startswith("ws4redis_tx")]
        makers = [vars(each)["__init__"] for each in ours if "__init__" in vars(each)]
        lines += [signature("__init__", each) for each in makers[:1]]
    for name in sorted(members(cls)):
        member = inspect.getattr_static(cls, name)
        if isinstance(member, classmethod):
            lines.append(signature(name, member.__func__))
        elif inspect.isfunction(member):
            lines.append(signature(name, member))
        elif isinstance(member, property) or not is_dataclass(cls):
            lines.append(name)
    return lines


def members(cls: type) -> set[str]:
    ours = [each for each in cls.__mro__ if each.__module__.startswith("ws4redis_tx")]
    names = {name for each in ours for name in vars(each) if name[0] != "_"}
    return names & set(MEMBERS.get(cls.__name__, names))


def described_field(each: Any) -> str:
    text = f"{each.name}: {each.type}"
    if each.default_factory is not MISSING:
        return f"{text} = {each.default_factory.__name__}()"
    return text if each.default is MISSING else f"{text} = {each.default!r}"


class Annotation:
    """A type that is shown as it is written. Some Python versions would quote it."""

    def __init__(self, text: Any) -> None:
        self._text = str(text)

    def __repr__(self) -> str:
        return self._text


def signature(name: str, function: Any) -> str:
    found = inspect.signature(function)
    parameters = [
        each
        if each.annotation is each.empty
        else each.replace(annotation=Annotation(each.annotation))
        for each in found.parameters.values()
    ]
    answer = Annotation(found.return_annotation)
    shown = found.replace(parameters=parameters, return_annotation=answer)
    return f"{'async ' if inspect.iscoroutinefunction(function) else ''}{name}{shown}"


class PublicNamesTests(SynchronousTestCase):
    maxDiff = None

    def test_they_are_the_pinned_ones(self) -> None:
        now, pinned = render().splitlines(), PINNED.read_text().splitlines()
        gone = [line for line in pinned if line not in now]
        new = [line for line in now if line not in pinned]
        self.assertEqual(
            (gone, new),
            ([], []),
            "Public names changed. See docs/compatibility.md; if it is meant, tell CHANGELOG.md "
            "and run python -m tests.architecture.test_public_names.",
        )
        self.assertEqual(now, pinned)

    def test_the_promise_names_the_modules_and_leads_to_the_list(self) -> None:
        promise = (ROOT / "docs" / "compatibility.md").read_text()
        self.assertIn("(../tests/public_names.txt)", promise)
        for module in MODULES:
            if not module.startswith("ws4redis_tx.core"):
                self.assertIn(f"`{module.removeprefix('ws4redis_tx') or module}`", promise)
        for link in re.findall(r"\]\(([^)]+)\)", promise):
            self.assertTrue((ROOT / "docs" / link).exists(), link)

    def test_what_the_documentation_imports_is_among_them(self) -> None:
        paths = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
        paths += [path for path in (ROOT / "examples").rglob("*") if path.suffix in (".py", ".tac")]
        for path in paths:
            text = path.read_text()
            for module, listed, line in re.findall(
                r"^\s*from (ws4redis_tx[\w.]*) import (?:\(([^)]+)\)|(.+))$", text, re.M
            ):
                names = [each.strip() for each in (listed or line).split(",") if each.strip()]
                for name in names:
                    name = name.partition(" as ")[0]
                    public = module in MODULES and name in public_names(module)
                    self.assertTrue(
                        public or f"{module}.{name}" in ("ws4redis_tx.settings", *MODULES),
                        f"{path.relative_to(ROOT)} imports {module}.{name}",
                    )


class TypedTests(SynchronousTestCase):
    """A type checker accepts a user's program."""

    def check(self, program: str) -> tuple[int, str]:
        folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        self.addCleanup(shutil.rmtree, folder)
        path = Path(folder) / "program.py"
        path.write_text(program)
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent",
             f"--cache-dir={CACHE}", str(path)],
            env={**os.environ, "MYPYPATH": str(ROOT)},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def test_a_program_that_uses_every_public_name_passes_strict_checks(self) -> None:
        set_up_django()
        text = USER_PROGRAM.read_text()
        used = {each.id for each in ast.walk(ast.parse(text)) if isinstance(each, ast.Name)}
        used |= {each.attr for each in ast.walk(ast.parse(text)) if isinstance(each, ast.Attribute)}
        for module in MODULES:
            if not module.startswith("ws4redis_tx.core"):
                self.assertEqual(set(public_names(module)) - used, set(), module)
        status, said = self.check(text)
        self.assertEqual(status, 0, said)

        mistakes = {
            "make_service('tcp:8080')": "arg-type",
            "ServerConfig(expire='1')": "arg-type",
            "RedisPublisher(facility='x', users=7)": "arg-type",
            "make_service(ServerConfig(), hooks=object())": "arg-type",
            "Identity().name": "attr-defined",
        }
        status, said = self.check(text + "\n" + "\n".join(mistakes) + "\n")
        first = len(text.splitlines()) + 2
        for number, (mistake, code) in enumerate(mistakes.items(), first):
            self.assertRegex(said, rf"program.py:{number}: error: .*\[{code}\]", mistake)


if __name__ == "__main__":
    PINNED.write_text(render())
