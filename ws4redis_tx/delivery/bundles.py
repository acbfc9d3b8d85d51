"""Joins publications that arrived together, for the listeners that get the same ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from ws4redis_tx.core.interfaces import IListener
from ws4redis_tx.core.messages import Joined, Publication
from ws4redis_tx.delivery.hub import Hub
from ws4redis_tx.delivery.sections import Bundle, Listeners, Section, divide


def bundle_up(publications: Sequence[Publication], hub: Hub) -> Iterator[Bundle]:
    """Bundle ``publications``, in their order: one bundle for all listeners of one codec to the
    same subset of their channels.
    """
    indices_of: dict[bytes, list[int]] = {}
    for index, publication in enumerate(publications):
        assert publication.channel is not None
        indices_of.setdefault(publication.channel, []).append(index)
    # The current dictionaries: if all leave a channel and one joins again, it has another one.
    listening = [hub.listeners.get(channel, {}) for channel in indices_of]
    if len(listening) == 1:
        yield from _bundles(publications, hub.sections(*indices_of), listening)
        return
    indices_by_bit = list(indices_of.values())
    for channels, receivers in _group(listening).items():
        bits = list(_set_bits(channels))
        indices = [index for bit in bits for index in indices_by_bit[bit]]
        if len(bits) > 1:
            indices.sort()
        subset = [publications[index] for index in indices]
        yield from _bundles(subset, divide(receivers), [listening[bit] for bit in bits])


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
    sections: Iterable[Section],
    listening: Sequence[Listeners],
) -> Iterator[Bundle]:
    if len(publications) == 1:
        for section in sections:
            yield Bundle(publications[0], section, listening)
        return
    senders = {publication.sender for publication in publications} - {None}
    joined = Joined(publications)
    for section in sections:
        apart = _apart(section, senders)
        if not apart:
            yield Bundle(joined, section, listening)
            continue
        together = [each for each in section.receivers if each not in apart]
        if together:
            yield Bundle(joined, Section(section.codec, together), listening)
        alone = Section(section.codec, tuple(apart))
        for publication in publications:
            yield Bundle(publication, alone, listening)


def _apart(section: Section, senders: Collection[object]) -> dict[IListener, None]:
    """Those who do not take joined messages, or must not get one of them."""
    if section.codec is not None and not senders:
        return {}
    return dict.fromkeys(
        each
        for each in section.receivers
        if each in senders or not getattr(each, "takes_joined", False)
    )
