"""The command ``connect``: who the client is, and its server-side subscriptions. A later token may
bring more of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.python.failure import Failure

from ws4redis_tx.core.admission import Admission
from ws4redis_tx.core.errors import BrokerUnavailable, Denied, is_permission_denied
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.names import SUBSCRIBE_RIGHTS
from ws4redis_tx.protocols.centrifuge import errors
from ws4redis_tx.protocols.centrifuge.errors import CommandError, Ends
from ws4redis_tx.protocols.centrifuge.names import Name
from ws4redis_tx.protocols.centrifuge.rights import ask_for
from ws4redis_tx.protocols.centrifuge.subscription import Subscription, begin
from ws4redis_tx.protocols.centrifuge.wire.schema import Values

if TYPE_CHECKING:
    from ws4redis_tx.protocols.centrifuge.connection import Connection

REFUSED_TIMEOUT = 5.0
"""Seconds after an error for ``connect``, until the connection ends."""


def connect(connection: Connection, number: int, request: Values) -> Deferred[None]:
    connection.connected = True
    connection.stop_timer("stale")
    done: Deferred[Any] = maybeDeferred(_identify, connection, request)
    done.addCallback(_subscribe, connection, request)
    both = connection, number
    return done.addCallbacks(_answer, _refuse, callbackArgs=both, errbackArgs=both)


def _answer(
    begun: tuple[list[Subscription], dict[str, Values]], connection: Connection, number: int
) -> None:
    subscriptions = [each for each in begun[0] if each.stands]
    answers = {each.name.text: begun[1][each.name.text] for each in subscriptions}
    answer: Values = {"client": connection.client, "version": connection.protocol.version}
    if answers:
        answer["subs"] = answers
    if not connection.websocket_pings:
        answer |= {"ping": max(1, round(connection.config.centrifuge_ping)), "pong": True}
    answer |= connection.protocol.tokens.lifetime(connection.expires)
    answer |= connection.stream or {}
    connection.reply(number, "connect", answer)
    connection.answered = True
    connection.protocol.connected(connection)
    if subscriptions:
        connection.flush()
    for each in subscriptions:
        each.go_live()


@inlineCallbacks
def _refuse(failure: Failure, connection: Connection, number: int) -> Any:
    if failure.check(Ends):
        return failure
    error = connection.error_for("connect", failure)
    if error.temporary:
        yield connection.protocol.late(connection)
    connection.refuse(number, error)
    connection.over = connection.answered = True
    seconds = min(REFUSED_TIMEOUT, connection.config.centrifuge_connect_timeout)
    connection.set_timer("refused", seconds, connection.disconnect, errors.STALE)


def _identify(connection: Connection, request: Values) -> Deferred[None]:
    token = request.get("token", "")
    url = connection.config.websocket_url
    handshake = replace(connection.handshake, websocket_url=url, credential=token)
    connection.handshake = handshake
    if token:
        connection.protocol.tokens.connect(connection, token)
    heard = connection.session.revocation
    answer: Deferred[Any] = connection.session.authorize(handshake, ())
    return answer.addCallbacks(
        _identified,
        _not_identified,
        callbackArgs=(connection, handshake, heard),
        errbackArgs=(connection,),
    )


def _identified(
    admission: Admission, connection: Connection, handshake: Handshake, heard: int
) -> None:
    connection.identity, connection.known_as = admission.identity, (heard, admission)
    if admission.redeemed:
        connection.handshake = replace(handshake, redeemed=admission.redeemed)


def _not_identified(failure: Failure, connection: Connection) -> Failure:
    error = failure.value
    if isinstance(error, BrokerUnavailable) or (isinstance(error, Denied) and error.status >= 500):
        raise CommandError(errors.TOO_MANY) from None
    if isinstance(error, Denied):
        known = connection.protocol.tokens.error(error)
        if known is not None:
            raise known from None
        raise CommandError(errors.UNAUTHORIZED if error.status == 401 else errors.DENIED) from None
    if is_permission_denied(error):
        raise CommandError(errors.DENIED) from None
    return failure


def _subscribe(_: object, connection: Connection, request: Values) -> Any:
    resumed = request.get("subs", {})
    names = list(_names(connection, resumed))
    return _begin(connection, names, resumed) if names else ([], {})


@inlineCallbacks
def _begin(connection: Connection, names: list[tuple[str, bool]], resumed: Values) -> Any:
    """Begin the server-side subscriptions, and fire with them and their answers."""
    subscriptions: list[Subscription] = []
    answers: dict[str, Values] = {}
    for name, strict in names:
        if name in answers:
            continue
        try:
            read = yield connection.protocol.read_name(connection, name)
            asked = resumed.get(name, {})
            if name not in connection.claimed:
                yield ask_for(connection, read, {})
            subscription = begin(connection, read, {}, server_side=True)
            answer = yield subscription.start(asked)
            answers[name] = _with_data(connection, name, answer)
        except CommandError as error:
            if error.error == errors.UNKNOWN_CHANNEL and not strict:
                raise Ends(errors.BAD) from None
            if strict or error.error.temporary:
                raise
            continue
        subscriptions.append(subscription)
    return subscriptions, answers


def _with_data(connection: Connection, name: str, answer: Values) -> Values:
    _, data = connection.claimed.get(name, (b"", b""))
    return {**answer, "data": data} if data else answer


@inlineCallbacks
def claimed_names(connection: Connection) -> Any:
    """Fire with what the names in a token mean. Fails with ``CommandError`` for one that means
    nothing to this client.
    """
    names = []
    for text in connection.claimed:
        name = yield connection.protocol.read_name(connection, text)
        connection.protocol.channel_of(name, connection)
        names.append(name)
    return names


@inlineCallbacks
def subscribe_claimed(connection: Connection, names: Iterable[Name]) -> Any:
    """Begin the subscriptions that another token has brought, and tell the client. If one cannot
    begin, the client is to connect anew.
    """
    for name in names:
        if connection.session.ended or name.text in connection.subscriptions:
            continue
        try:
            subscription = begin(connection, name, {}, server_side=True)
            answer = yield subscription.start({})
        except Exception:
            if connection.error_for("refresh", Failure()) == errors.ALREADY_SUBSCRIBED:
                continue  # by another name
            raise Ends(errors.INSUFFICIENT_STATE) from None
        if subscription.stands:
            told = _with_data(connection, name.text, answer)
            connection.push({"channel": name.text, "subscribe": told})
            subscription.go_live()


def _names(connection: Connection, resumed: Values) -> Iterator[tuple[str, bool]]:
    """The names of server-side subscriptions, and whether an error makes ``connect`` fail."""
    parameters = parse_qs(connection.handshake.query)
    for facility in parameters.get("facility", []):
        for flag in connection.handshake.flags:
            if flag in SUBSCRIBE_RIGHTS:
                audience = flag.partition("-")[2]
                if audience == "group":
                    for group in connection.identity.groups:
                        yield f"group:{group}:{facility}", True
                else:
                    yield f"{audience}:{facility}", True
    for name in connection.claimed:
        yield name, True
    for name in resumed:
        yield name, False
