"""The imports between the package's modules, read from the source.

``python -m tests.architecture.imports`` prints the rooms from top to bottom, each with its imports.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "ws4redis_tx"

# Room → the rooms that it may import, besides itself. A room may import only rooms above it.
ROOMS: dict[str, set[str]] = {
    "core": set(),
    "core.tokens": {"core"},
    "config": {"core"},
    "delivery": {"core"},
    "scheduling": {"core"},
    "redis.wire": {"core", "scheduling"},
    "redis.history": {"core", "redis.wire"},
    "redis.presence": {"core", "redis.wire"},
    "redis": {
        "core", "delivery", "scheduling", "redis.wire", "redis.history", "redis.presence",
    },
    "revocation": {"core", "core.tokens", "config", "scheduling"},
    "protocols": {"core", "config", "delivery", "scheduling"},
    "protocols.centrifuge.wire": {"core", "delivery"},
    "protocols.centrifuge": {
        "core.tokens",
        "core", "config", "delivery", "scheduling", "revocation", "protocols",
        "protocols.centrifuge.wire",
    },
    "sessions": {"core", "config", "delivery", "scheduling", "revocation", "protocols"},
    "websocket": {"core", "delivery", "scheduling", "sessions"},
    "sse": {"core", "delivery", "scheduling", "sessions"},
    "emulation": {
        "core", "delivery", "scheduling", "protocols.centrifuge.wire", "sessions", "sse",
    },
    "occupancy": {"core", "config", "scheduling"},
    "threads": {"core", "config", "redis"},
    "publishing": {"core", "config", "threads", "doors"},
    "django": {"core", "core.tokens", "config", "revocation", "threads", "doors"},
    "system": {"core", "config", "doors"},
    "twistd": {
        "core", "config", "scheduling", "websocket", "threads", "django", "system", "doors",
    },
    "runserver": {"core", "config", "threads", "django", "system", "twistd", "doors"},
    "testing.memory": {"core", "delivery", "redis", "redis.history"},
    "testing": {
        "core", "config", "scheduling", "protocols.centrifuge.wire", "threads", "django", "system",
        "twistd", "testing.memory", "doors",
    },
}  # fmt: skip

# Thin modules that other people's code imports. They lead into rooms, and may import any room.
DOORS = {
    "__init__", "apps", "context_processors", "panels", "policies", "presence", "publisher",
    "redis_store", "service", "settings", "signals", "subscriber", "tap", "templatetags", "tickets",
    "tokens",
}  # fmt: skip

# Old import paths of promised names, a line or two each. These are doors, too.
SHIMS = {"core.config", "core.hooks"}


@dataclass(frozen=True)
class Arrow:
    """One import: module names without the package's, and the line number."""

    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def modules() -> dict[str, Path]:
    """Every module by its name within the package: ``redis.broker``, ``core`` for its package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)
        found[name] = path
    return found


def arrows() -> Iterator[Arrow]:
    """Every import of one module by another, including those in functions and those for types."""
    names = set(modules())
    for importer, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            for imported in _imported(node):
                # ``from room import module`` and ``from room.module import name``.
                while imported and imported not in names:
                    imported = imported.rpartition(".")[0]
                yield Arrow(importer, imported or "__init__", node.lineno)


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        dotted = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
        dotted = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
        return
    for name in dotted:
        first, _, rest = name.partition(".")
        if first == PACKAGE.name:
            yield rest


def room_of(module: str) -> str:
    """The room of a module; ``doors`` for modules at the top of the package."""
    if module.partition(".")[0] in DOORS or module in SHIMS:
        return "doors"
    while module not in ROOMS and "." in module:
        module = module.rpartition(".")[0]
    return module


def drawing() -> str:
    """The rooms and the arrows between them."""
    found: dict[str, set[str]] = {room: set() for room in (*ROOMS, "doors")}
    sizes = dict.fromkeys(found, 0)
    for name in modules():
        sizes[room_of(name)] += name not in ROOMS
    for arrow in arrows():
        here, there = room_of(arrow.importer), room_of(arrow.imported)
        if here != there:
            found[here].add(there)
    order = [*ROOMS, "doors"]
    lines = []
    for room in order:
        above = " ".join(sorted(found[room], key=order.index)) or "the standard library"
        lines.append(f"{room:<11}{sizes[room]:>3} modules  → {above}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(drawing(), end="")
