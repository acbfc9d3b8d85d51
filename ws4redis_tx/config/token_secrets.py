"""The kind of ``WS4REDIS_TOKEN_SECRET``: what tokens are signed with."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from ws4redis_tx.config.kinds import Kind, is_off
from ws4redis_tx.core.errors import ConfigError

_LEAST = 32  # bytes, as many as HS256 has
_MAKE = "python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one."


class Secrets(Kind):
    """One secret or several, of which the first signs and each verifies; off means none. On the
    command line, ``@`` and the name of a file with one in each line. No error shows a value.
    """

    def check(self, name: str, value: object) -> tuple[str, ...]:
        if is_off(value):
            return ()
        secrets = (value,) if isinstance(value, str) else value
        if isinstance(secrets, bytes) or not isinstance(secrets, Iterable):
            raise ConfigError(
                name, f"is a {type(value).__name__}", "Use a string, or a list of strings."
            )
        checked = tuple(secrets)
        for each in checked:
            if not isinstance(each, str):
                raise ConfigError(
                    name, f"holds a {type(each).__name__}, which is not a string", "Use strings."
                )
            if len(each.encode(errors="surrogatepass")) < _LEAST:
                raise ConfigError(
                    name, f"is shorter than {_LEAST} bytes, and can be guessed", _MAKE
                )
        return checked

    def read(self, name: str, text: str) -> object:
        if not text.startswith("@"):
            raise ConfigError(
                name,
                "holds a secret, and every user of this machine can read the command line",
                f"Write it into a file and pass {name} @FILE, or set WS4REDIS_TOKEN_SECRET in the "
                "Django settings (without Django: in the environment).",
            )
        try:
            with open(text[1:]) as file:
                secrets = [line.strip() for line in file if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                name, f"names a file that cannot be read: {error}", "Correct its path."
            ) from None
        if not secrets:
            raise ConfigError(name, "names a file without a secret", _MAKE)
        return secrets


def derived(keys: Iterable[str | bytes]) -> tuple[str, ...]:
    """A secret for each of a site's ``keys``, none of which can be computed from it."""
    return tuple(
        hmac.new(
            each if isinstance(each, bytes) else each.encode(),
            b"ws4redis_tx.tokens",
            hashlib.sha256,
        ).hexdigest()
        for each in keys
        if each
    )
