"""A user's program with every public name, for a type checker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.http import HttpRequest, HttpResponse
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

import ws4redis_tx
from ws4redis_tx import context_processors, policies, publisher, redis_store
from ws4redis_tx.core.admission import Asked, IFacilitiesAuthorizer
from ws4redis_tx.panels import MessagesPanel
from ws4redis_tx.presence import (
    Present,
    PresentCount,
    acount,
    ais_online,
    awho,
    count,
    is_online,
    who,
)
from ws4redis_tx.publisher import SELF, RedisPublisher
from ws4redis_tx.redis_store import RedisMessage, RedisStore
from ws4redis_tx.service import (
    Admission,
    BrokerUnavailable,
    Closing,
    ConfigError,
    Denied,
    Handshake,
    IAuthorizer,
    IBroker,
    IConnection,
    Identity,
    IHooks,
    IListener,
    MessageRefused,
    NullHooks,
    PlainRequest,
    Publication,
    Publisher,
    RedisAddress,
    RedisBroker,
    Refusal,
    ServerConfig,
    WebSocketFactory,
    WebSocketResource,
    WebSocketService,
    default_policy,
    disconnect,
    make_broker,
    make_factory,
    make_resource,
    make_service,
    parse_redis_address,
    use_monotonic_clock,
)
from ws4redis_tx.signals import (
    client_connected,
    client_disconnected,
    client_subscribed,
    client_unsubscribed,
    message_published,
    message_received,
)
from ws4redis_tx.subscriber import RedisSubscriber
from ws4redis_tx.testing import (
    CapturedMessage,
    CapturedMessages,
    CentrifugeClient,
    CentrifugeError,
    LiveServer,
    LiveSite,
    MemoryBroker,
    MemoryClient,
    MemoryEvents,
    Push,
    RedisProcess,
    ServerProcess,
    capture_messages,
    client_frame,
    connect,
    connect_centrifuge,
    listen,
    make_memory_factory,
)
from ws4redis_tx.tickets import amake_ticket, make_ticket
from ws4redis_tx.tokens import TokenUser, connection_token, subscription_token

# In Django


def view(request: HttpRequest) -> HttpResponse:
    to_me = RedisPublisher(request, facility="orders", users=[SELF], groups={"staff"})
    receivers: int = to_me.publish_message("shipped", expire=60)
    to_me.publish_message(RedisMessage(b"\xff"), on_commit=True)
    published = to_me.publish_message("paid", idempotency_key="order-7-paid")
    position: str = published.position or RedisPublisher.position()
    to_me.forget()
    last = to_me.fetch_message(request, "orders", audience="user")
    ticket: str = make_ticket(request, facility="orders", rights=["subscribe-user"])
    told: int = ws4redis_tx.disconnect(user="john") + ws4redis_tx.disconnect(facility="orders")
    context: dict[str, Any] = context_processors.default(request)
    token: str = connection_token(request.user, 60, {"name": "Ann"}, ["broadcast:news"])
    channel: str = subscription_token("group:staff:news", request.user, ttl=60, info=None)
    by_token = isinstance(request.user, TokenUser)
    here: list[Present] = who("chat", group="staff", request=request)
    pages: PresentCount = count("chat")
    names = [each.user for each in here if is_online(each.user)]
    return HttpResponse(
        f"{receivers} {position} {last!r} {ticket} {token} {channel} {by_token} {told} {context}"
        f"{names} {pages + pages.users}"
    )


async def async_view(request: HttpRequest) -> HttpResponse:
    receivers: int = await RedisPublisher(facility="x", broadcast=True).apublish_message(b"hello")
    ticket: str = await amake_ticket(request)
    told: int = await ws4redis_tx.adisconnect(group="staff")
    here = len(await awho("chat")) + await acount("chat") + await ais_online("john")
    return HttpResponse(f"{receivers} {ticket} {told} {here} {ws4redis_tx.__version__}")


rules = [policies.allow("orders/<int:pk>", lambda request, pk: pk > 0)]


def rights(request: HttpRequest, channels: Sequence[str]) -> Sequence[str]:
    return policies.allow_all(request, channels) if request.user.is_authenticated else ()


def came(connection: IConnection, **kwargs: Any) -> None:
    connection.send(f"Hello {connection.identity.username}")


def left(connection: IConnection, closing: Closing, **kwargs: Any) -> None:
    print(connection.facility, closing.code, closing.seconds)


class MoreMessages(MessagesPanel):
    title = "Messages"


def announced(channels: tuple[str, ...], error: Exception | None, **told: Any) -> None:
    print(channels, error)


message_published.connect(announced)
client_connected.connect(came)
message_received.connect(came)
client_subscribed.connect(came)
client_unsubscribed.connect(came)
client_disconnected.connect(left)


class Subscriber(RedisSubscriber):
    subscription_channels = [*RedisSubscriber.subscription_channels, "subscribe-all"]

    def set_pubsub_channels(self, request: Any, channels: Any) -> Deferred[Any]:
        return super().set_pubsub_channels(request, channels)

    def publish_message(self, message: RedisMessage, expire: int | None = None) -> Deferred[int]:
        return super().publish_message(RedisMessage(message.upper()), expire)


# In a Twisted application


class Authorizer:
    def authorize(self, handshake: Handshake, rights: Sequence[str]) -> Admission:
        if handshake.headers.get("authorization") != "Bearer secret":
            raise Denied(401, "Who are you?", headers=(("WWW-Authenticate", "Bearer"),))
        identity = Identity(username="john", user_id="7")
        request = PlainRequest(handshake.path_info, identity)
        return Admission(identity, default_policy(rights), request, expires=1e10)

    def authorize_facilities(
        self, handshake: Handshake, asked: Sequence[Asked], known: Admission | None = None
    ) -> list[Admission | Exception]:
        return [
            self.authorize(handshake.on_facility(each.facility, each.rights), each.rights)
            for each in asked
        ]


def answers_together(authorizer: IFacilitiesAuthorizer) -> IFacilitiesAuthorizer:
    return authorizer


answers_together(Authorizer())


class Hooks(NullHooks):
    def connected(self, connection: IConnection, /) -> None:
        self.last = connection

    async def message(self, connection: IConnection, message: bytes, /) -> str | None:
        if not message:
            raise MessageRefused("Say something.")
        return message.decode() if "publish-broadcast" in connection.rights else None

    def refused(self, refusal: Refusal, /) -> Deferred[None]:
        print(refusal.status, refusal.reason, refusal.path, refusal.peer)
        return Deferred()


class AllHooks:
    """Hooks without our base class."""

    async def connected(self, connection: IConnection, /) -> None:
        connection.close(4000, "Not today")

    async def refused(self, refusal: Refusal, /) -> None:
        print(refusal.detail)

    def message(self, connection: IConnection, message: bytes, /) -> bytes:
        return message

    async def closed(self, connection: IConnection, closing: Closing, /) -> None:
        print(closing.reason, closing.by_server, closing.clean, closing.sent, closing.received)


class Listener:
    def deliver(self, publication: Publication) -> None:
        print(publication.channel, publication.payload)


def configuration() -> ServerConfig:
    address: RedisAddress = parse_redis_address("redis://localhost/1")
    try:
        return ServerConfig(redis=address, listen=("tcp:8080",), expire=60, subscriber=Subscriber)
    except ConfigError as error:
        print(error.setting, error.problem, error.remedy)
        return ServerConfig.from_django(listen=("tcp:8080",))


def service() -> WebSocketService:
    config = configuration()
    authorizer: IAuthorizer = Authorizer()
    hooks: IHooks = AllHooks()
    made = make_service(config, authorizer=authorizer, hooks=hooks, subscriber=Subscriber)
    made.stop_code = 1012
    ready: Deferred[None] = made.when_ready()
    ready.addCallback(print)
    return made


def beside_pages() -> WebSocketResource:
    use_monotonic_clock()
    config = configuration()
    broker: RedisBroker = make_broker(config)
    factory: WebSocketFactory = make_factory(config, broker=broker, hooks=Hooks())
    gone: Deferred[None] = factory.drain(1001)
    gone.addErrback(Failure.printTraceback)
    return make_resource(factory)


async def publish(config: ServerConfig, broker: IBroker) -> int:
    listener: IListener = Listener()
    await broker.listen(b"broadcast:x", listener)
    try:
        published: int = await broker.publish([b"broadcast:x"], b"hello", 60)
        published += await Publisher(config, broker, facility="x").publish_message("hello")
        published += await disconnect(config, broker, user="john")
    except BrokerUnavailable as error:
        return int(error.maybe_published)
    return published


# In tests


def in_memory() -> list[str | bytes]:
    broker = MemoryBroker()
    factory = make_memory_factory(configuration(), broker=broker, hooks=Hooks(), clock=Clock())
    client: MemoryClient = connect(factory, "ws://localhost/ws/x?subscribe-broadcast", cookies={})
    client.send_bytes(client_frame(1, b"hello"))
    return client.messages


def captured() -> Sequence[CapturedMessage]:
    with capture_messages() as found:
        all_of_them: CapturedMessages = found
        all_of_them.assert_published("hello", facility="x")
    return all_of_them.messages


def resuming(factory: WebSocketFactory) -> tuple[str | None, bool | None, list[str]]:
    client: MemoryClient = connect(factory, "ws://localhost/ws/x", since="").reconnect()
    events: MemoryEvents = listen(factory, "http://localhost/ws/x").reconnect()
    return client.position, client.recovered, [*client.gap, *events.messages, events.position]


def channels(factory: WebSocketFactory) -> tuple[list[Push], int]:
    client: CentrifugeClient = connect_centrifuge(factory, token="…").reconnect()
    try:
        client.subscribe("broadcast:x")
    except CentrifugeError as error:
        return client.pushes, error.code
    return client.pushes, 0


def processes(redis: RedisProcess, server: ServerProcess) -> tuple[str, str, type[LiveServer]]:
    return redis.url, server.url("x", "subscribe-broadcast"), LiveServer


def test_page(ws4redis_live_server: LiveSite, published_messages: CapturedMessages) -> None:
    assert ws4redis_live_server.websocket_url("x", "subscribe-user") != ws4redis_live_server + "/"
    published_messages.assert_not_published()


def names() -> tuple[object, ...]:
    same = publisher.RedisMessage is redis_store.RedisMessage and publisher.SELF is redis_store.SELF
    return same, RedisStore
