"""Signals of Django that this package listens to. None of them may break what sent it.

What changes a user, or a user's groups, is told to the websocket servers when the transaction is
committed: before, they would read what was there before. A logout is told at once, as the session's
key is gone afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial, wraps
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.core.exceptions import FieldDoesNotExist
from django.db import transaction
from django.db.models import Model
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_save

from ws4redis_tx.django.revoking import tell
from ws4redis_tx.revocation.messages import LOGOUT, RECHECK, Revocation, digest

_log = logging.getLogger(__name__)

# Primary keys in one message.
_MOST_VALUES = 1000


def _unbreaking(receiver: Callable[..., None]) -> Callable[..., None]:
    @wraps(receiver)
    def guarded(sender: Any, **kwargs: Any) -> None:
        try:
            receiver(sender, **kwargs)
        except Exception:
            _log.exception("The websocket servers could not be told of a change")

    return guarded


def connect() -> None:
    """Connect all receivers, once, when Django's models are loaded.

    To each model by itself: a receiver of every model's deletions would slow all of them down.
    """
    user_logged_in.connect(remember_groups, dispatch_uid="ws4redis_tx.remember_groups")
    user_logged_out.connect(logged_out, dispatch_uid="ws4redis_tx.logged_out")
    user_model = get_user_model()
    for model in _kin(user_model):
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
    for model in _kin(groups.remote_field.model):
        pre_save.connect(remember_name, sender=model, dispatch_uid="ws4redis_tx.remember_name")
        post_save.connect(group_saved, sender=model, dispatch_uid="ws4redis_tx.group_saved")
        post_delete.connect(group_deleted, sender=model, dispatch_uid="ws4redis_tx.group_deleted")


def _kin(model: type[Model]) -> list[type[Model]]:
    """It, its proxies and children, and its parents: a save of each may change the same row."""
    models = apps.get_models()
    return [each for each in models if issubclass(each, model) or issubclass(model, each)]


@_unbreaking
def remember_groups(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
    """At login: note the user's groups in the session, where *django-websocket-redis* servers,
    which do not ask the database, look for them.
    """
    groups = getattr(user, "groups", None)
    if request is None or not hasattr(request, "session") or groups is None:
        return
    request.session["ws4redis:memberof"] = list(groups.values_list("name", flat=True))


@_unbreaking
def logged_out(sender: Any, request: Any, **kwargs: Any) -> None:
    """Before the session is flushed. The key of a signed cookie names no session."""
    key = getattr(getattr(request, "session", None), "session_key", None)
    if key and settings.SESSION_ENGINE != "django.contrib.sessions.backends.signed_cookies":
        tell(Revocation(LOGOUT, "session", (digest(key),)))


@_unbreaking
def user_saved(
    sender: Any, instance: Any, created: bool, using: str, update_fields: Any = None, **kwargs: Any
) -> None:
    """Password, ``is_active``, name. A login saves too, and changes nothing of this."""
    if not created and (update_fields is None or set(update_fields) - {"last_login"}):
        _recheck("user", [instance.pk], using)


@_unbreaking
def user_deleted(sender: Any, instance: Any, using: str, **kwargs: Any) -> None:
    _recheck("user", [instance.pk], using)


@_unbreaking
def remember_name(
    sender: Any, instance: Any, using: str, update_fields: Any = None, **kwargs: Any
) -> None:
    """Before a group is saved: who is in it is known to the servers by its old name."""
    if instance.pk is None or (update_fields is not None and "name" not in update_fields):
        return
    old = sender._base_manager.using(using).filter(pk=instance.pk).values_list("name", flat=True)
    instance._ws4redis_renamed = [name for name in old if name != instance.name]


@_unbreaking
def group_saved(sender: Any, instance: Any, using: str, **kwargs: Any) -> None:
    _recheck("group", instance.__dict__.pop("_ws4redis_renamed", ()), using)


@_unbreaking
def group_deleted(sender: Any, instance: Any, using: str, **kwargs: Any) -> None:
    _recheck("group", [instance.name], using)


@_unbreaking
def groups_changed(
    sender: Any,
    instance: Any,
    action: str,
    reverse: bool,
    pk_set: Any,
    using: str,
    **kwargs: Any,
) -> None:
    """``user.groups`` (``instance`` is the user), or ``group.user_set`` (it is the group).

    Who joins one has it at the next connection.
    """
    if not reverse and action in ("post_remove", "post_clear"):
        _recheck("user", [instance.pk], using)
    elif reverse and action == "post_remove":
        _recheck("user", pk_set, using)
    elif reverse and action == "post_clear":
        _recheck("group", [instance.name], using)


def _recheck(kind: str, values: Iterable[Any], using: str) -> None:
    names = [str(value) for value in values]
    for i in range(0, len(names), _MOST_VALUES):
        revocation = Revocation(RECHECK, kind, tuple(names[i : i + _MOST_VALUES]))
        connection = transaction.get_connection(using)
        if connection.in_atomic_block or connection.get_autocommit():
            transaction.on_commit(partial(tell, revocation), using=using, robust=True)
        else:
            tell(revocation)  # who commits by hand is not heard when it does
