"""What the documentation says about figures and no figure says itself."""

_A_MESSAGE = (
    "After the handshake, a client that connects sends a message with six commands and gets six "
    "answers, which a classic one does not. The figures without a site show what that alone takes."
)

# Why goals were missed, by the goals' texts. Each reason is one that a program measures.
REASONS = {
    "one to one, idle work included: ratio to the minimal relay": "The relay knows no visitors. "
    "Our server also pings its two thousand visitors every 25 s, and rechecks each one's session, "
    "user and groups every 300 s. The figure includes this work, divided among the messages. "
    "`python -m benchmarks.relay` also prints the ratio without it.",
    "fan-out, without a site: ratio to Bun + ioredis": "The two are level: the ratio differs more "
    "from round to round than it does from 1. Nine tenths of both is the kernel's work, as the C "
    "loop over `send()` shows.",
    "deviation: from 100 to 15,000 clients, deliveries alone (pings and rechecks subtracted)": (
        "The ratio to the C loop falls as clients come: reading a message and preparing its bytes "
        "is done once, and the more clients it has, the less of that each delivery bears."
    ),
    "deviation: channels published to": "Each of many channels has few listeners, and each message "
    "is read, prepared and looked up for these alone. The figures stand in their table: the ratio "
    "rises with the number of channels, while a message to one channel has become cheap.",
    "connect with 5 subscriptions: ratio to a classic handshake": _A_MESSAGE,
    "connect with 5 subscriptions of all audiences: ratio to a classic handshake with all "
    "audiences": _A_MESSAGE,
    "connect with a token and 1 subscription: ratio to Centrifugo, Redis": (
        "A handshake alone takes our server longer than the whole takes Centrifugo, as that of a "
        "classic client without a site shows. The rest is a message in and one out, the token, and "
        "the subscription."
    ),
}

_NOTHING_KEPT = "kept nothing for those who reconnect"
_PLAIN = f"knew no visitors; {_NOTHING_KEPT}"
_LIBRARY = f"a library and a few lines: knew no visitors, {_NOTHING_KEPT}"
_TOKEN = "looked nobody up, but checked a token"
# What the servers did not do for these figures, by the beginnings of their names. Most can do more.
_LACKED = {
    "ws4redis_tx, without a site": _PLAIN,
    "ws4redis_tx": _NOTHING_KEPT,
    "nginx + nchan, in memory": "knew no visitors; reached the clients of one server only",
    "nginx + nchan": "knew no visitors",
    "Channels": f"looked up session and user only once; {_NOTHING_KEPT}",
    "Bun": _LIBRARY,
    "ws +": _LIBRARY,
    "picows": _LIBRARY,
    "aiohttp": _LIBRARY,
    "websockets": _LIBRARY,
    "Tornado": _LIBRARY,
    "socket.io": _PLAIN,
    "Centrifugo, in memory": f"{_TOKEN}; reached the clients of one server only; {_NOTHING_KEPT}",
    "Centrifugo, Redis with history": _TOKEN,
    "Centrifugo": f"{_TOKEN}; {_NOTHING_KEPT}",
    "NATS": _PLAIN,
    "mosquitto": _PLAIN,
    "pushpin": _PLAIN,
}


def lacked(name: str) -> str | None:
    """Return what a server did not do, or ``None`` if nobody has said it."""
    return next((text for start, text in _LACKED.items() if name.startswith(start)), None)
