"""Publications that came together: who gets which of them, joined for all who get the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ws4redis_tx.core.interfaces import IListener
from ws4redis_tx.core.messages import Joined, Publication

Listeners = Mapping[IListener, None]


class Bundle:
    """What some listeners get: a publication, or several joined.

    :param listening: who listens to each of its channels, at each moment: one may leave before its
        turn.
    """

    __slots__ = ("listening", "publication", "receivers")

    def __init__(
        self,
        publication: Any,
        receivers: Sequence[IListener],
        listening: Sequence[Listeners],
    ) -> None:
        self.publication = publication
        self.receivers = receivers
        self.listening = listening


def bundle_up(
    publications: Sequence[Publication], listeners: Mapping[bytes, Listeners]
) -> Iterator[Bundle]:
    """Every listener's bundle of ``publications``, in their order; one bundle for all who listen to
    the same of their channels.
    """
    indices_of: dict[bytes, list[int]] = {}
    for index, publication in enumerate(publications):
        assert publication.channel is not None
        indices_of.setdefault(publication.channel, []).append(index)
    # As they are now: a channel that all leave and somebody joins again is another one.
    listening = [listeners.get(channel, {}) for channel in indices_of]
    numbers = list(indices_of.values())
    audiences: Mapping[int, Sequence[IListener]]
    audiences = _audiences(listening) if len(listening) > 1 else {1: tuple(listening[0])}
    for channels, receivers in audiences.items():
        bits = list(_bits(channels))
        indices = [index for bit in bits for index in numbers[bit]]
        if len(bits) > 1:
            indices.sort()
        theirs = [publications[index] for index in indices]
        yield from _bundles(theirs, receivers, [listening[bit] for bit in bits])


def _audiences(listening: Sequence[Listeners]) -> dict[int, list[IListener]]:
    """Who listens to exactly these channels, by their numbers as bits."""
    channels_of: dict[IListener, int] = {}
    for number, listeners in enumerate(listening):
        bit = 1 << number
        for listener in listeners:
            channels_of[listener] = channels_of.get(listener, 0) | bit
    audiences: dict[int, list[IListener]] = {}
    for listener, channels in channels_of.items():
        audience = audiences.get(channels)
        if audience is None:
            audiences[channels] = [listener]
        else:
            audience.append(listener)
    return audiences


def _bits(bits: int) -> Iterator[int]:
    """The numbers of those that are set."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def _bundles(
    publications: Sequence[Publication],
    receivers: Sequence[IListener],
    listening: Sequence[Listeners],
) -> Iterator[Bundle]:
    if len(publications) == 1:
        yield Bundle(publications[0], receivers, listening)
        return
    senders = {publication.sender for publication in publications}
    together: list[IListener] = []
    apart: list[IListener] = []
    for receiver in receivers:
        joins = getattr(receiver, "takes_joined", False) and receiver not in senders
        (together if joins else apart).append(receiver)
    if together:
        yield Bundle(Joined(publications), together, listening)
    if apart:
        for publication in publications:
            yield Bundle(publication, apart, listening)
