"""Django signals: about what this process publishes, and about the websockets that it serves.

``message_published(channels, size, receivers, duration, error, caller, on_commit)``: a
``RedisPublisher`` has published, or failed to. It is sent once Redis has answered, or has not in
time, and before the call returns; for a message that waited for a commit, after the commit. Within
``capture_messages`` it is sent, too. ``sender`` is ``RedisPublisher``.

- ``channels``: the names in Redis, with a session's key left out (``session:…:facility``); empty if
  the audience is nobody.
- ``size``: the bytes of the message. ``duration``: seconds until Redis answered.
- ``receivers``: what the call returns. ``error``: what it raises, or ``None``.
- ``caller``: the innermost line of code outside of this package and Django, as ``file:line``, or
  ``""``. ``on_commit``: whether the message waited for a commit.

Receivers run in the thread that publishes, which waits for them, so they must not block. With
``apublish_message``, async receivers run on the event loop and others in a thread, as in Django's
``asend_robust``. Errors of receivers are logged, and do not reach the publisher. While no receiver
is connected, nothing of this is computed.

The other signals are about websockets. They are sent in a worker thread, so receivers may use the
ORM and no websocket waits for them. The signals of one websocket come in order. ``connection`` is
the same object in all of them, and is hashable.

- ``client_connected(connection)``: a websocket has opened.
- ``message_received(connection, message)``: a client sent ``message``, which is bytes. The server
  publishes it whatever the receiver does, possibly before the receiver runs. To change or reject
  messages, use ``IHooks``.
- ``client_subscribed(connection, channel)`` and ``client_unsubscribed(connection, channel)``: a
  client with many channels has subscribed to one, named as in Redis, or has left it.
- ``client_disconnected(connection, closing)``: a websocket has closed. ``closing`` has the code,
  the reason and the counts.

``connection`` is a ``ws4redis_tx.service.IConnection``. It has ``facility`` and ``identity``, and
receivers may call its ``send`` and ``close``.

Connect receivers in ``AppConfig.ready``: they are not told of websockets that opened earlier. At
most 10,000 events wait for slow receivers; at most half of them, and 16 MiB, may be messages.
Further events are dropped, and the log says how many.
"""

from __future__ import annotations

from django.dispatch import Signal

__all__ = [
    "client_connected",
    "client_disconnected",
    "client_subscribed",
    "client_unsubscribed",
    "message_published",
    "message_received",
]

client_connected = Signal()
client_disconnected = Signal()
client_subscribed = Signal()
client_unsubscribed = Signal()
message_published = Signal()
message_received = Signal()
