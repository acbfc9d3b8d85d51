"""The base class of all codecs. A codec is a protocol, its framing and its compression."""

from __future__ import annotations

from collections.abc import Sequence

from ws4redis_tx.core.messages import Notice, Publication


class Codec:
    """An ``ICodec`` that joins messages by joining their forms."""

    __slots__ = ()

    def encode(self, publication: Publication, /) -> bytes:
        raise NotImplementedError

    def notify(self, notice: Notice, /) -> bytes:
        """Those who keep no position are told nothing."""
        return b""

    def join(self, publications: Sequence[Publication], /) -> bytes:
        return b"".join([each.forms.get(self) or each.form(self) for each in publications])
