"""The part of a publisher that makes messages of data and of templates."""

from __future__ import annotations

from collections.abc import Mapping
from json import JSONEncoder
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.core.serializers.json import DjangoJSONEncoder

from ws4redis_tx.publishing.contents import json_text, rendered
from ws4redis_tx.publishing.kept_messages import KeptMessages

if TYPE_CHECKING:
    from ws4redis_tx.core.messages import Published


class MadeMessages(KeptMessages):
    """A part of ``RedisPublisher``."""

    _request: Any = None

    def publish_json(
        self,
        data: Any,
        encoder: type[JSONEncoder] = DjangoJSONEncoder,
        expire: int | None = None,
        *,
        on_commit: bool | None = None,
        using: str | None = None,
        idempotency_key: str = "",
    ) -> Published:
        """``publish_message`` with ``data`` as JSON. Django's encoder knows dates, times, UUIDs and
        decimals, too.

        Besides, raises ``TypeError`` for data that the encoder does not know, and ``ValueError``
        for NaN and infinity, which browsers could not read.
        """
        return self.publish_message(
            json_text(data, encoder),
            expire,
            on_commit=on_commit,
            using=using,
            idempotency_key=idempotency_key,
        )

    async def apublish_json(
        self,
        data: Any,
        encoder: type[JSONEncoder] = DjangoJSONEncoder,
        expire: int | None = None,
        *,
        idempotency_key: str = "",
    ) -> Published:
        """``publish_json`` for async views, as ``apublish_message`` is."""
        text = json_text(data, encoder)
        return await self.apublish_message(text, expire, idempotency_key=idempotency_key)

    def publish_template(
        self,
        template: str,
        context: Mapping[str, Any] | None = None,
        expire: int | None = None,
        *,
        on_commit: bool | None = None,
        using: str | None = None,
        idempotency_key: str = "",
    ) -> Published:
        """``publish_message`` with a template that is rendered: ``"orders/row.html"``, or a partial
        of it, ``"orders/row.html#row"``.

        It is rendered at the call, also with ``on_commit``, and in the calling thread. If the
        publisher has a ``request``, the template has it too, with the values of the context
        processors. All who get the message get the same text, so it must not say anything that is
        meant for one of them.

        Besides, raises ``TemplateDoesNotExist``, and whatever the template raises. Partials need
        Django 6.0, or the app *django-template-partials*.
        """
        return self.publish_message(
            rendered(template, context, self._request),
            expire,
            on_commit=on_commit,
            using=using,
            idempotency_key=idempotency_key,
        )

    async def apublish_template(
        self,
        template: str,
        context: Mapping[str, Any] | None = None,
        expire: int | None = None,
        *,
        idempotency_key: str = "",
    ) -> Published:
        """``publish_template`` for async views, as ``apublish_message`` is. The template is
        rendered in the thread for synchronous code, so it may query the database.
        """
        text = await sync_to_async(rendered)(template, context, self._request)
        return await self.apublish_message(text, expire, idempotency_key=idempotency_key)

    # RedisPublisher has these.

    def publish_message(
        self,
        message: Any,
        expire: int | None = None,
        *,
        on_commit: bool | None = None,
        using: str | None = None,
        idempotency_key: str = "",
    ) -> Published:
        raise NotImplementedError

    async def apublish_message(
        self, message: Any, expire: int | None = None, *, idempotency_key: str = ""
    ) -> Published:
        raise NotImplementedError
