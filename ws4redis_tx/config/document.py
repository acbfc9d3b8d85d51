"""The table of settings as text: for the options' help, for a docstring and for the documentation.

``python -m ws4redis_tx.config.document docs/reference/settings.md`` writes the table there anew.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

from ws4redis_tx.config.kinds import Flag, Names
from ws4redis_tx.config.setting import Setting
from ws4redis_tx.config.table import BY_FIELD, SETTINGS
from ws4redis_tx.core.redis_address import RedisAddress

_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")
_TABLE = re.compile(r"(?<=\|---\|---\|---\|\n)(?:\|.*\n)+")


def option_help(row: Setting) -> str:
    """A sentence, with the default as it would be typed."""
    text = _LINK.sub(r"\1", row.help).replace("`", "")
    notes = ["repeatable"] if isinstance(row.kind, Names) else []
    if row.default is not None and not isinstance(row.kind, Flag):
        notes.append(f"default: {typed(row.default)}")
    return text[0].upper() + text[1:] + (f" ({'; '.join(notes)})." if notes else ".")


def typed(value: object) -> str:
    """The value as a text on the command line."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def parameters(defaults: Mapping[str, object]) -> str:
    """A ``:param`` for each of the fields of ``ServerConfig``."""
    return "\n".join(_parameter(BY_FIELD[name], value) for name, value in defaults.items())


def _parameter(row: Setting, default: object) -> str:
    text = _LINK.sub(r"\1", row.help).replace("`", "``")
    if isinstance(default, RedisAddress):
        shown = f"parse_redis_address({str(default)!r})"
    else:
        shown = repr(default)
    return textwrap.fill(
        f":param {row.field}: {text}. Default: ``{shown}``.",
        width=100,
        subsequent_indent="    ",
        break_on_hyphens=False,
    )


def settings_table() -> str:
    """The rows of ``docs/reference/settings.md``."""
    return "".join(_row(each) for each in SETTINGS)


def _row(row: Setting) -> str:
    names = [row.name]
    if row.option:
        names.append(f"--{row.option}")
    if row.option and isinstance(row.kind, Flag):
        names.append(f"--no-{row.option}")
    if row.field:
        names.append(row.field)
    spelled = " <br> ".join(f"`{name}`" for name in names)
    return f"| {spelled} | `{row.default!r}` | {row.help} |\n"


def with_table(page: str) -> str:
    """The page with its first table replaced by that of the settings."""
    return _TABLE.sub(lambda _: settings_table(), page, count=1)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_table(path.read_text()))
