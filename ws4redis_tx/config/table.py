"""Every setting, one row each.

From a row come the check of ``manage.py check``, the option of ``twistd ws4redis``, the validation
and the default of the field of ``ServerConfig``, the lines in its docstring and in
``docs/reference/settings.md``, and the name in an error.

A new setting is a row here and a field in ``ServerConfig``. Afterwards
``python -m ws4redis_tx.config.document docs/reference/settings.md`` writes the documentation, and
``python -m tests.architecture.test_public_names`` the list of promised names. Callables have no
option; a setting that Django's code alone uses has neither option nor field.
"""

from __future__ import annotations

from ws4redis_tx.config.fields_alone import FIELDS_ALONE
from ws4redis_tx.config.history_patterns import HistoryPatterns
from ws4redis_tx.config.importing import Importable
from ws4redis_tx.config.kinds import (
    Address,
    Choice,
    Count,
    Flag,
    Judged,
    OptionalNames,
    Origins,
    OrNone,
    RatePair,
    Seconds,
    Text,
    UrlPath,
    WholeSeconds,
)
from ws4redis_tx.config.policy_rules import POLICY
from ws4redis_tx.config.setting import Setting
from ws4redis_tx.config.token_secrets import Secrets
from ws4redis_tx.core.limits import CLOSE, SLOW_READER_POLICIES
from ws4redis_tx.core.names import check_prefix
from ws4redis_tx.core.origins import OriginPolicy
from ws4redis_tx.core.proxies import TrustedProxies

_SUBSCRIBER = Importable(
    "Name a subclass of RedisSubscriber, or a function (connection) that makes one.",
    takes=1,
    methods=("set_pubsub_channels", "send_persisted_messages", "publish_message", "release"),
)
_LOOKUP = Importable(
    "Name a plain function (request), which runs in a thread and may block.", takes=1
)

_NAMES = Importable(
    "Name a plain function (request, name), which runs in a thread and may block.", takes=2
)
_RPC = Importable(
    "Name a plain function (request, method, data), which runs in a thread and may block.", takes=3
)

# fmt: off
SETTINGS = (
    Setting(
        name="WS4REDIS_CENTRIFUGE_URL", field="centrifuge_url", option="centrifuge-url",
        check="E040",
        shared=True,
        default=None, kind=OrNone(UrlPath(), "no such clients"),
        help="the prefix of the paths at which clients speak Centrifuge's protocol, such as "
        "`/connection/`: many channels over one connection; `None`: none do",
    ),
    Setting(
        name="WS4REDIS_CENTRIFUGE_NAMES", field="centrifuge_names", check="E041",
        default=None, kind=OrNone(_NAMES, "the names of this server"),
        help="a callable, or its dotted name, for clients that bring names of channels from "
        "another server: `(request, name) -> str`, such as `'broadcast:news'`; `None` for an "
        "unknown name",
    ),
    Setting(
        name="WS4REDIS_RPC", field="rpc", check="E042",
        default=None, kind=OrNone(_RPC, "no remote calls"),
        help="a callable, or its dotted name, that answers a client's remote call: "
        "`(request, method, data)`; its result becomes JSON",
    ),
    Setting(
        name="WEBSOCKET_URL", field="websocket_url", option="websocket-url", check="E001",
        shared=True,
        default="/ws/", kind=UrlPath(),
        help="the prefix of every websocket path; it starts and ends with `/`",
    ),
    Setting(
        name="WS4REDIS_CONNECTION", field="redis", option="redis", check="E002",
        shared=True,
        default=None, kind=Address(),
        help="the Redis server: `redis://user:password@host:6379/0`, `rediss://…`, "
        "`unix:///path?db=0`, `sentinel://host:port/service/0`, or a dict; `None` is "
        "`redis://localhost:6379/0`. `embedded://localhost:6379` is for development: `manage.py "
        "runserver` and `twistd ws4redis` start one there. In code, `parse_redis_address` reads "
        "them. The option refuses a password; `--redis @FILE` reads the URL from a file. Without "
        "Django, the environment variable `WS4REDIS_CONNECTION` counts too",
    ),
    Setting(
        name="WS4REDIS_PREFIX", field="prefix", option="prefix", check="E003",
        shared=True,
        default=None, kind=Judged(check_prefix),
        help="the first word of all names in Redis; two sites on one Redis server need one each",
    ),
    Setting(
        name="WS4REDIS_EXPIRE", field="expire", option="expire", check="E004",
        default=3600, kind=WholeSeconds("persist nothing", negative=True),
        help="seconds for which the last message of a channel is kept; `0` or `None`: not at all",
    ),
    Setting(
        name="WS4REDIS_HISTORY", field="history", option="history", check="E032",
        shared=True,
        default=None, kind=HistoryPatterns(),
        help="facilities whose channels [keep a history](../history.md): "
        "`{'orders': (100, 3600), 'chat/*': (50, 86400)}` are the last 100 messages of 3600 s, and "
        "so on; the first pattern that matches counts",
    ),
    Setting(
        name="WS4REDIS_PRESENCE", field="presence", option="presence", check="E033", shared=True,
        default=None, kind=OptionalNames("chat/*"),
        help="facilities [that know who is there](../presence.md), as shell patterns: `['chat/*']`",
    ),
    Setting(
        name="WS4REDIS_PRESENCE_GRACE", field="presence_grace", option="presence-grace",
        check="E034", default=10, kind=Count(least=0, most=40),
        help="seconds after which a client whose connection was lost leaves; at most 40",
    ),
    Setting(
        name="WS4REDIS_SUBSCRIBER", field="subscriber", check="E005",
        default="ws4redis_tx.subscriber.RedisSubscriber", kind=_SUBSCRIBER,
        help="the subclass of `RedisSubscriber`, or its dotted name, that [decides what a "
        "websocket hears](../migrating.md#your-own-subscriber)",
    ),
    Setting(
        name="WS4REDIS_HEARTBEAT", field="heartbeat", option="heartbeat", check="E006",
        shared=True,
        default=None, kind=Text(),
        help="a text that every client gets at least every 5 s, and that is dropped when a client "
        "sends it",
    ),
    Setting(
        name="WS4REDIS_ALLOWED_CHANNELS", check="E007",
        default=None, kind=OrNone(POLICY, "the default policy"),
        help="a callable that [grants rights](../migrating.md#who-may-publish), a list of "
        "[rules](../security.md#rules-for-facilities), or the dotted name of one",
    ),
    Setting(
        name="WS4REDIS_PROCESS_REQUEST", check="E008",
        default=None, kind=OrNone(_LOOKUP, "Django's lookup"),
        help="a callable, or its dotted name, that sets `request.session` and `request.user` in "
        "place of Django's lookup",
    ),
    Setting(
        name="WS4REDIS_TENANT", check="E031",
        default=None, kind=OrNone(_LOOKUP, "one site without tenants"),
        help="a callable, or its dotted name, that tells [whose site a request is for]"
        "(../tenants.md): `(request) -> str`",
    ),
    Setting(
        name="WS4REDIS_TOKEN_SECRET", field="token_secret", option="token-secret", check="E046",
        shared=True,
        default=None, kind=Secrets(),
        help="the secret that signs [tokens](../security.md#tokens), at least 32 bytes, or a list, "
        "of which the first signs and all verify; `None` derives it from `SECRET_KEY` and "
        "`SECRET_KEY_FALLBACKS`, and without Django no token is accepted. The option is `@FILE`, "
        "one secret a line. Without Django, the environment variable of that name counts too",
    ),
    Setting(
        name="WS4REDIS_ENDLESS_TOKENS", field="endless_tokens", option="endless-tokens",
        check="E047",
        default=False, kind=Flag(),
        help="accept tokens without `iat` or `exp` too, which another program made; "
        "[a revocation does not make one without `iat` void](../security.md#tokens)",
    ),
    Setting(
        name="WS4REDIS_ALLOWED_ORIGINS", field="allowed_origins", option="origin", check="E009",
        default=None, kind=Origins("https://example.com", OriginPolicy),
        help="origins besides the server's own host whose pages may connect: "
        "`https://app.example.com`, `https://*.example.com`, or `*` for all",
    ),
    Setting(
        name="WS4REDIS_REQUIRE_ORIGIN", field="require_origin",
        option="require-origin", check="E015",
        default=False, kind=Flag(),
        help="refuse clients that send no `Origin`",
    ),
    Setting(
        name="WS4REDIS_TRUSTED_PROXIES", field="trusted_proxies",
        option="trusted-proxy", check="E017",
        default=None, kind=OptionalNames("127.0.0.1", TrustedProxies),
        help="addresses and networks of proxies in front, whose `X-Forwarded-For`, `-Proto` and "
        "`-Host` are believed; `unix` for those that use a Unix socket",
    ),
    # Django's code alone uses these three.
    Setting(
        name="WS4REDIS_ON_COMMIT", check="E016",
        default=False, kind=Flag(),
        help="publish when the transaction commits",
    ),
    Setting(
        name="WS4REDIS_TIMEOUT", check="E010",
        default=5, kind=Seconds(),
        help="seconds that a publish or a fetch in Django may wait for Redis",
    ),
    Setting(
        name="WS4REDIS_REVOKE", check="E024",
        default=True, kind=Flag(),
        help="Django [tells the servers at once](../security.md#what-takes-effect-when) of logouts "
        "and of changes of users and groups",
    ),
    Setting(
        name="WS4REDIS_MAX_MESSAGE_SIZE", field="max_message_size",
        option="max-message-size", check="E011",
        default=1024 * 1024, kind=Count(),
        help="bytes that a client's message may have; a larger one closes the websocket with 1009",
    ),
    Setting(
        name="WS4REDIS_MAX_PENDING", field="max_pending", option="max-pending", check="E012",
        default=4 * 1024 * 1024, kind=Count(),
        help="bytes that may wait for a client [that does not read]"
        "(../operating.md#clients-that-do-not-read), each message with its frame and the memory "
        "that keeps it; one message is always accepted when nothing waits",
    ),
    Setting(
        name="WS4REDIS_SLOW_READER", field="slow_reader", option="slow-reader", check="E014",
        default=CLOSE, kind=Choice(SLOW_READER_POLICIES),
        help="what gives way when more would wait: the client, which is closed with 1013 "
        "(`close`), the oldest messages (`drop_oldest`), or all but the newest message of each "
        "channel (`latest`)",
    ),
    Setting(
        name="WS4REDIS_MAX_PENDING_TOTAL", field="max_pending_total",
        option="max-pending-total", check="E027",
        default=512 * 1024 * 1024, kind=Count(),
        help="bytes that the server may hold [for all clients together]"
        "(../operating.md#memory-for-all-clients-together) in one process: messages that wait for "
        "clients that do not read, and messages of clients that have not arrived completely or "
        "wait for Redis. Beyond it, the clients with the most give way first, as "
        "`WS4REDIS_SLOW_READER` says, and new handshakes get 503",
    ),
    Setting(
        name="WS4REDIS_MAX_CONNECTIONS", field="max_connections",
        option="max-connections", check="E013",
        default=None, kind=OrNone(Count(), "as many as there are file descriptors"),
        help="open websockets of one process; further ones get 503. `None`: as many as the process "
        "has file descriptors for",
    ),
    Setting(
        name="WS4REDIS_MAX_CONNECTIONS_PER_USER", field="max_connections_per_user",
        option="max-connections-per-user", check="E018",
        default=None, kind=OrNone(Count(), "no limit"),
        help="websockets of one user, or of one session of an anonymous visitor, in one process; "
        "further ones get 503",
    ),
    Setting(
        name="WS4REDIS_MAX_CONNECTIONS_PER_ADDRESS", field="max_connections_per_address",
        option="max-connections-per-address", check="E019",
        default=None, kind=OrNone(Count(), "no limit"),
        help="websockets of one client address in one process, where an IPv6 network of 64 bits "
        "counts as one address; further ones get 503",
    ),
    Setting(
        name="WS4REDIS_MAX_AUTHORIZATIONS", field="max_authorizations",
        option="max-authorizations", check="E020",
        default=20_000, kind=Count(),
        help="handshakes that may wait for Django, or for your authorizer; further ones get 503 "
        "before it is asked",
    ),
    Setting(
        name="WS4REDIS_RATE", field="rate", option="rate", check="E021",
        default=(1000, 16 * 1024 * 1024), kind=OrNone(RatePair(), "no limit"),
        help="messages and bytes a second that one client may send on average, with bursts of 10 s "
        "of it; one that sends more is closed with 1013",
    ),
    Setting(
        name="WS4REDIS_CLIENT_QUOTA", field="client_quota", option="client-quota", check="E029",
        default=16 * 1024 * 1024, kind=OrNone(Count(least=0), "no limit"),
        help="bytes that [the clients of one address](../operating.md#the-client-quota) may "
        "keep persisted; beyond it their messages are published and not persisted. `0` or `None`: "
        "no limit",
    ),
    Setting(
        name="WS4REDIS_COMPRESSION", field="compression", option="compression", check="E022",
        default=False, kind=Flag(),
        help="[compress](../operating.md#compression) messages (permessage-deflate) with clients "
        "that offer it",
    ),
    Setting(
        name="WS4REDIS_RECHECK", field="recheck", option="recheck", check="E023",
        default=300, kind=WholeSeconds("look only when something is known to have changed"),
        help="seconds after which each websocket is authorized again; `0` or `None`: only when "
        "something is known to have changed",
    ),
)
"""Those of Django, in the order of the documentation."""

# fmt: on

BY_NAME = {row.name: row for row in SETTINGS}
BY_FIELD = {row.field: row for row in SETTINGS + FIELDS_ALONE if row.field}
