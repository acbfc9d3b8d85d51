"""The fields of ``ServerConfig`` that Django has no settings for, one row each, as in ``table``."""

from __future__ import annotations

from ws4redis_tx.config.kinds import Flag, Judged, Names, OrNone, Seconds
from ws4redis_tx.config.setting import Setting
from ws4redis_tx.core.http import check_script_name

DEFAULT_LISTEN = ("tcp:8080:interface=127.0.0.1",)

# fmt: off
FIELDS_ALONE = (
    Setting(
        field="listen", option="listen",
        default=DEFAULT_LISTEN, kind=Names("tcp:8080"),
        help="Twisted endpoints to listen on, such as `tcp:8080` or `unix:/run/ws.sock`",
    ),
    # Django decides these: FORCE_SCRIPT_NAME, WS4REDIS_TENANT, ALLOWED_HOSTS, and whether there is
    # a Django.
    Setting(
        field="script_name",
        default="", kind=Judged(check_script_name),
        help="the path, such as `/app`, under which a site that is not at the root of its host is "
        "mounted; it may stand before `websocket_url` in a request",
    ),
    Setting(
        field="tenants",
        default=False, kind=Flag(),
        help="each visitor belongs to a tenant, which the authorizer names in "
        "`Admission.identity`",
    ),
    Setting(
        field="allowed_hosts",
        default=None,
        kind=OrNone(Names("www.example.com"), "loopback and the hosts of allowed_origins"),
        help="hosts that a client may name, as in Django's `ALLOWED_HOSTS`; `None`: loopback and "
        "the hosts of `allowed_origins`",
    ),
    Setting(
        field="centrifuge_ping",
        default=25.0, kind=Seconds(),
        help="seconds between two pings of a client of Centrifuge's protocol",
    ),
    Setting(
        field="centrifuge_pong",
        default=8.0, kind=Seconds(),
        help="seconds within which such a client answers a ping",
    ),
    Setting(
        field="centrifuge_connect_timeout",
        default=10.0, kind=Seconds(),
        help="seconds within which such a client sends its first command",
    ),
    Setting(
        field="centrifuge_expired_grace",
        default=25.0, kind=Seconds(),
        help="seconds for which such a client may refresh a token that has expired",
    ),
    Setting(
        field="django",
        default=False, kind=Flag(),
        help="take session, user and rights of a visitor from Django",
    ),
)
"""Of ``ServerConfig``, without a setting of Django."""

# fmt: on
