"""Tokens that are void, because their user has lost something since they were issued.

A token says who its user is, and nothing is looked up. So it is not asked what changed: every token
that was issued before the change is void, and the site makes another one, or refuses to.

A message of the control channel tells of it:

    3:{"void": [D, …], "before": SECONDS}

``D`` is the SHA-256 of ``TENANT:KIND:NAME``, in its first 32 hexadecimal digits: of a ``user``'s
primary key, of a ``username`` or of a ``group``. ``TENANT`` is empty for what concerns all tenants.
``SECONDS`` since the epoch are those of the clock that also issues tokens, that of the site. The
same is kept for a day in lists, for servers that are started later: an entry is a line,
``1:D:SECONDS``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ws4redis_tx.core.admission import Identity
from ws4redis_tx.core.names import control_channel
from ws4redis_tx.revocation.messages import Revocation

CLOSE_CODE = 3005
"""In Centrifuge's protocol: the connection has expired, and its client comes back with another
token.
"""

KEPT_FOR = 24 * 3600
"""Seconds for which the lists are kept. A token that lives longer is not judged by what was before.
"""

MOST = 65_536
"""Digests that a server remembers. Beyond it the oldest are forgotten, and every token that was
issued before these counts as void.
"""

_LISTS = 64
_LONGEST_LIST = 32 * 1024  # bytes; Redis cuts off what is older
VOIDING = b"3:"
"""The beginning of a message."""

_ENTRY = re.compile(rb"1:([0-9a-f]{32}):(\d{1,11}(?:\.\d{1,6})?)")
_DIGEST = re.compile(r"[0-9a-f]{32}")

USER, USERNAME, GROUP = "user", "username", "group"


def token_digest(kind: str, name: str, tenant: str = "") -> str:
    """The name of those whose tokens are void."""
    text = f"{tenant}:{kind}:{name}".encode(errors="surrogatepass")
    return hashlib.sha256(text).hexdigest()[:32]


def digests_of(identity: Identity) -> Iterator[str]:
    """All that can make a token of ``identity`` void."""
    for tenant in {"", identity.tenant}:
        if identity.user_id is not None:
            yield token_digest(USER, identity.user_id, tenant)
        if identity.username is not None:
            yield token_digest(USERNAME, identity.username, tenant)
        for group in identity.groups:
            yield token_digest(GROUP, group, tenant)


@dataclass(frozen=True, slots=True)
class Voiding:
    """The tokens of those with one of ``digests`` that were issued ``before`` a time are void."""

    digests: tuple[str, ...]
    before: float

    @property
    def payload(self) -> bytes:
        return VOIDING + json.dumps({"void": self.digests, "before": self.before}).encode()

    def entries(self, prefix: str) -> dict[bytes, bytes]:
        """The entries that tell a server which is started later, by the keys of their lists."""
        entries: dict[bytes, bytes] = {}
        for digest in self.digests:
            key = _list_key(prefix, int(digest[:8], 16) % _LISTS)
            line = f"1:{digest}:{self.before:.6f}\n".encode()
            entries[key] = entries.get(key, b"") + line
        return entries


def void_by(revocation: Revocation, before: float) -> Voiding | None:
    """The tokens that a disconnection makes void; ``None`` if it names no user and no group."""
    if revocation.kind not in (USER, USERNAME, GROUP):
        return None
    digests = [token_digest(revocation.kind, each, revocation.tenant) for each in revocation.values]
    return Voiding(tuple(digests), before)


def read_voiding(payload: bytes) -> Voiding:
    """Raises ``ValueError`` for a message that cannot be understood."""
    try:
        content = json.loads(payload[len(VOIDING) :])
        digests, before = content["void"], float(content["before"])
        understood = all(map(_DIGEST.fullmatch, digests)) and before == before
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError("its void tokens cannot be read") from error
    if not understood:
        raise ValueError("its void tokens cannot be read")
    return Voiding(tuple(digests), before)


def void_lists(prefix: str) -> list[bytes]:
    """The keys of all lists."""
    return [_list_key(prefix, number) for number in range(_LISTS)]


def _list_key(prefix: str, number: int) -> bytes:
    return control_channel(prefix, f"void:{number}")


class VoidTokens:
    """What a server knows of tokens that are void."""

    def __init__(self) -> None:
        # When the tokens of a digest became void, those that were heard of last at the end.
        self._since: dict[str, float] = {}
        self._floor = 0.0  # what was before it may be forgotten

    def add(self, voiding: Voiding) -> None:
        for digest in voiding.digests:
            self._add(digest, voiding.before)

    def add_lists(self, lists: Iterable[bytes | None], now: float) -> None:
        """Learn what the lists tell of the last day. Entries of another version are skipped."""
        found: list[tuple[float, str]] = []
        for each in lists:
            entries = [
                (float(match[2]), match[1].decode())
                for line in (each or b"").split(b"\n")
                if (match := _ENTRY.fullmatch(line))
            ]
            found += [entry for entry in entries if entry[0] > now - KEPT_FOR]
            if each is not None and len(each) >= _LONGEST_LIST and entries:
                self._floor = max(self._floor, entries[-1][0])
        for since, digest in sorted(found):
            self._add(digest, since)

    def _add(self, digest: str, since: float) -> None:
        since = max(since, self._since.pop(digest, 0.0))
        self._since[digest] = since
        if len(self._since) > MOST:
            oldest = next(iter(self._since))
            self._floor = max(self._floor, self._since.pop(oldest))

    def covers(self, identity: Identity, issued: float) -> bool:
        """Whether a token of ``identity`` that was ``issued`` then is void."""
        if identity.username is None or (not self._since and not self._floor):
            return False
        if issued < self._floor:
            return True
        return any(issued < self._since.get(digest, 0.0) for digest in digests_of(identity))

    def __len__(self) -> int:
        return len(self._since)
