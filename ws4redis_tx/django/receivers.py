"""Receivers of Django's signals, which tell the websocket servers about revoked rights.

No receiver may break its sender. The servers are told about a change to a user, or to a user's
groups, when the transaction commits: earlier, they would still read the old state. They are told
about a logout at once, because the session key is gone afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from functools import partial, wraps
from time import monotonic
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.core.exceptions import FieldDoesNotExist
from django.core.signals import request_finished, request_started
from django.db import transaction
from django.db.models import Model
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_save

from ws4redis_tx.config import django_settings
from ws4redis_tx.django.revoking import tell, uses_tokens, void_tokens
from ws4redis_tx.redis_store import session_key_of
from ws4redis_tx.revocation.messages import LOGOUT, RECHECK, Revocation, digest

_log = logging.getLogger(__name__)

_request_started: ContextVar[float | None] = ContextVar("request_started", default=None)

# Primary keys in one message.
_MAX_VALUES = 1000

# The fields of a user whose change makes the user's tokens void, besides the name.
_CREDENTIALS = {"password", "is_active"}


def _log_exceptions(receiver: Callable[..., None]) -> Callable[..., None]:
    @wraps(receiver)
    def guarded(sender: Any, **kwargs: Any) -> None:
        try:
            receiver(sender, **kwargs)
        except Exception:
            _log.exception("The websocket servers could not be told of a change")

    return guarded


def _note_start(**kwargs: Any) -> None:
    _request_started.set(monotonic())


def _note_end(**kwargs: Any) -> None:
    _request_started.set(None)


def request_began() -> float | None:
    """The time by ``time.monotonic()`` at which the request began that is being answered; ``None``
    outside of a request.
    """
    return _request_started.get()


def connect() -> None:
    """Connect all receivers. Call it once, after Django has loaded its models.

    Each receiver is connected to its own models: one for the deletions of every model would slow
    all of them down.
    """
    request_started.connect(_note_start, dispatch_uid="ws4redis_tx.request_started")
    request_finished.connect(_note_end, dispatch_uid="ws4redis_tx.request_finished")
    user_logged_in.connect(remember_groups, dispatch_uid="ws4redis_tx.remember_groups")
    user_logged_out.connect(logged_out, dispatch_uid="ws4redis_tx.logged_out")
    user_model = get_user_model()
    for model in _related_models(user_model):
        pre_save.connect(remember_user, sender=model, dispatch_uid="ws4redis_tx.remember_user")
        post_save.connect(user_saved, sender=model, dispatch_uid="ws4redis_tx.user_saved")
        post_delete.connect(user_deleted, sender=model, dispatch_uid="ws4redis_tx.user_deleted")
    try:
        groups: Any = user_model._meta.get_field("groups")
    except FieldDoesNotExist:
        return
    if not groups.many_to_many:
        return
    m2m_changed.connect(
        groups_changed, sender=groups.remote_field.through, dispatch_uid="ws4redis_tx.groups"
    )
    for model in _related_models(groups.remote_field.model):
        pre_save.connect(remember_name, sender=model, dispatch_uid="ws4redis_tx.remember_name")
        post_save.connect(group_saved, sender=model, dispatch_uid="ws4redis_tx.group_saved")
        post_delete.connect(group_deleted, sender=model, dispatch_uid="ws4redis_tx.group_deleted")


def _related_models(model: type[Model]) -> list[type[Model]]:
    """The model, its proxies, children and parents: saving any of them may change the same row."""
    models = apps.get_models()
    return [each for each in models if issubclass(each, model) or issubclass(model, each)]


@_log_exceptions
def remember_groups(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
    """At login, store the user's groups in the session.

    *django-websocket-redis* servers look for them there, because they do not query the database.
    """
    groups = getattr(user, "groups", None)
    if request is None or not hasattr(request, "session") or groups is None:
        return
    request.session["ws4redis:memberof"] = list(groups.values_list("name", flat=True))


@_log_exceptions
def logged_out(sender: Any, request: Any, user: Any = None, **kwargs: Any) -> None:
    """Runs before Django flushes the session. A signed cookie's key does not identify a session.

    A token does not tell by which session its user got it, so all of the user's tokens are void.
    """
    key = session_key_of(getattr(request, "session", None))
    signed = user is not None and uses_tokens()
    if not key and not signed:
        return
    tenant = django_settings.tenant_of(request)
    if signed:
        void_tokens(users=[user.pk], usernames=[user.get_username()], tenant=tenant)
    if key:
        tell(Revocation(LOGOUT, "session", (digest(key, tenant),), tenant))


@_log_exceptions
def remember_user(
    sender: Any, instance: Any, using: str, update_fields: Any = None, **kwargs: Any
) -> None:
    """Runs before a user is saved. Many sites save a user at each request, and must not make the
    user's tokens void by that: only a change does.
    """
    instance.__dict__.pop("_ws4redis_before", None)
    if instance.pk is None or not uses_tokens():
        return
    fields = {field.attname for field in sender._meta.concrete_fields}
    fields &= {*_CREDENTIALS, getattr(sender, "USERNAME_FIELD", "username")}
    if update_fields is not None:
        fields &= set(update_fields)
    if fields:
        rows = sender._base_manager.using(using).filter(pk=instance.pk).values(*sorted(fields))
        instance._ws4redis_before = rows.first()


@_log_exceptions
def user_saved(
    sender: Any, instance: Any, created: bool, using: str, update_fields: Any = None, **kwargs: Any
) -> None:
    """The password, ``is_active`` or the name may have changed. A login changes only
    ``last_login``.
    """
    before = instance.__dict__.pop("_ws4redis_before", None) or {}
    if not created and (update_fields is None or set(update_fields) - {"last_login"}):
        _recheck("user", [instance.pk], using)
    if any(getattr(instance, name) != value for name, value in before.items()):
        names = [before.get(getattr(sender, "USERNAME_FIELD", "")), _username(instance)]
        _void(using, users=[instance.pk], usernames=names)


@_log_exceptions
def user_deleted(sender: Any, instance: Any, using: str, **kwargs: Any) -> None:
    _recheck("user", [instance.pk], using)
    _void(using, users=[instance.pk], usernames=[_username(instance)])


def _username(user: Any) -> str | None:
    """``None`` for a row of a parent model that has no names."""
    return user.get_username() if hasattr(user, "get_username") else None


@_log_exceptions
def remember_name(
    sender: Any, instance: Any, using: str, update_fields: Any = None, **kwargs: Any
) -> None:
    """Runs before a group is saved, because the servers know its members by the old name."""
    if instance.pk is None or (update_fields is not None and "name" not in update_fields):
        return
    old = sender._base_manager.using(using).filter(pk=instance.pk).values_list("name", flat=True)
    instance._ws4redis_renamed = [name for name in old if name != instance.name]


@_log_exceptions
def group_saved(sender: Any, instance: Any, using: str, **kwargs: Any) -> None:
    renamed = instance.__dict__.pop("_ws4redis_renamed", ())
    _recheck("group", renamed, using)
    _void(using, groups=renamed)


@_log_exceptions
def group_deleted(sender: Any, instance: Any, using: str, **kwargs: Any) -> None:
    _recheck("group", [instance.name], using)
    _void(using, groups=[instance.name])


@_log_exceptions
def groups_changed(
    sender: Any,
    instance: Any,
    action: str,
    reverse: bool,
    pk_set: Any,
    using: str,
    **kwargs: Any,
) -> None:
    """``instance`` is the user for ``user.groups``, and the group for ``group.user_set``.

    Only leaving a group matters: users who join one have it from their next connection on.
    """
    if not reverse and action in ("post_remove", "post_clear"):
        _recheck("user", [instance.pk], using)
        _void(using, users=[instance.pk])
    elif reverse and action == "post_remove":
        _recheck("user", pk_set, using)
        _void(using, users=pk_set)
    elif reverse and action == "post_clear":
        _recheck("group", [instance.name], using)
        _void(using, groups=[instance.name])


def _recheck(kind: str, values: Iterable[Any], using: str) -> None:
    """In every tenant: no request says whose user or group it is."""
    names = [str(value) for value in values]
    for i in range(0, len(names), _MAX_VALUES):
        _after_commit(
            partial(tell, Revocation(RECHECK, kind, tuple(names[i : i + _MAX_VALUES]))), using
        )


def _void(
    using: str,
    users: Iterable[Any] = (),
    usernames: Iterable[str | None] = (),
    groups: Iterable[str] = (),
) -> None:
    """In every tenant, too."""
    if uses_tokens():
        work = partial(void_tokens, users=users, usernames=usernames, groups=groups)
        _after_commit(work, using)


def _after_commit(work: Callable[[], None], using: str) -> None:
    connection = transaction.get_connection(using)
    if connection.in_atomic_block or connection.get_autocommit():
        transaction.on_commit(work, using=using, robust=True)
    else:
        work()  # with manual commits, Django refuses on_commit()
