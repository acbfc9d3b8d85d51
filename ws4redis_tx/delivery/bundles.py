"""Joins publications that arrived together, for the listeners that get the same ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ws4redis_tx.core.interfaces import IListener
from ws4redis_tx.core.messages import Joined, Publication

Listeners = Mapping[IListener, None]


class Bundle:
    """A publication, or several joined, and the listeners that get it.

    :param listening: for each of its channels, the current listeners: a receiver may leave before
        its turn.
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
    """Bundle ``publications``, in their order: one bundle for all listeners to the same subset of
    their channels.
    """
    indices_of: dict[bytes, list[int]] = {}
    for index, publication in enumerate(publications):
        assert publication.channel is not None
        indices_of.setdefault(publication.channel, []).append(index)
    # The current dictionaries: if all leave a channel and one joins again, it has another one.
    listening = [listeners.get(channel, {}) for channel in indices_of]
    indices_by_bit = list(indices_of.values())
    groups: Mapping[int, Sequence[IListener]]
    groups = _group(listening) if len(listening) > 1 else {1: tuple(listening[0])}
    for channels, receivers in groups.items():
        bits = list(_set_bits(channels))
        indices = [index for bit in bits for index in indices_by_bit[bit]]
        if len(bits) > 1:
            indices.sort()
        subset = [publications[index] for index in indices]
        yield from _bundles(subset, receivers, [listening[bit] for bit in bits])


def _group(listening: Sequence[Listeners]) -> dict[int, list[IListener]]:
    """Group listeners by the exact set of their channels, a bit mask of ``listening``'s indices."""
    channels_of: dict[IListener, int] = {}
    for number, listeners in enumerate(listening):
        bit = 1 << number
        for listener in listeners:
            channels_of[listener] = channels_of.get(listener, 0) | bit
    groups: dict[int, list[IListener]] = {}
    for listener, channels in channels_of.items():
        group = groups.get(channels)
        if group is None:
            groups[channels] = [listener]
        else:
            group.append(listener)
    return groups


def _set_bits(bits: int) -> Iterator[int]:
    """The indices of the bits that are set."""
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
