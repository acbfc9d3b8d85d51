"""What the documentation says about figures and no figure says itself."""

# Why goals were missed, by the goals' texts. Each reason is one that a program measures.
REASONS = {
    "one to one, idle work included: ratio to the minimal relay": "The relay knows no visitors. "
    "Our server also pings its two thousand visitors every 25 s, and rechecks each one's session, "
    "user and groups every 300 s. The figure includes this work, divided among the messages. "
    "`python -m benchmarks.relay` also prints the ratio without it.",
}

_LIBRARY = "a library and a few lines: knows no visitors, keeps nothing for those who reconnect"
# What other servers do not do for these figures, by the beginnings of their names.
_LACKS = {
    "nginx + nchan, in memory": "knows no visitors; one machine only",
    "nginx + nchan": "knows no visitors",
    "Channels": "looks up session and user once; keeps nothing for those who reconnect",
    "Bun": _LIBRARY,
    "ws +": _LIBRARY,
    "picows": _LIBRARY,
    "aiohttp": _LIBRARY,
    "websockets": _LIBRARY,
    "Tornado": _LIBRARY,
    "socket.io": "knows no visitors; keeps nothing for those who reconnect",
    "Centrifugo, in memory": "a token instead of a session, checked without a look-up; one machine "
    "only",
    "Centrifugo, Redis with history": "a token instead of a session, checked without a look-up",
    "Centrifugo": "a token instead of a session, checked without a look-up; keeps nothing for "
    "those who reconnect",
    "NATS": "knows no visitors; keeps nothing for those who reconnect",
    "mosquitto": "knows no visitors; keeps nothing for those who reconnect",
    "pushpin": "knows no visitors",
    "AnyCable": "knows no visitors",
}


def lacks(name: str) -> str | None:
    """Return what a server does not do, or ``None`` if nobody has said it."""
    return next((text for start, text in _LACKS.items() if name.startswith(start)), None)
