"""The text of a message: JSON, or a template that is rendered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import django
from django.apps import apps
from django.template import TemplateDoesNotExist
from django.template.loader import render_to_string

_PARTIALS = (6, 0)
"""The version of Django from which on it has partials itself."""


def json_text(data: Any, encoder: type[json.JSONEncoder]) -> str:
    """``data`` as JSON that browsers can read, in one line. Raises ``TypeError`` for what the
    encoder does not know, and ``ValueError`` for NaN and infinity, which JSON does not have.
    """
    return json.dumps(data, cls=encoder, allow_nan=False, separators=(",", ":"))


def rendered(template: str, context: Mapping[str, Any] | None, request: Any) -> str:
    """The template's text, as ``render_to_string`` makes it. Raises ``TemplateDoesNotExist``."""
    try:
        return render_to_string(template, context, request)
    except TemplateDoesNotExist as error:
        if not _lacks_partials(template, error):
            raise
        remedy = (
            f"{template}: Django {django.__version__} has no partials. Update to Django 6.0, or "
            "install django-template-partials and add 'template_partials' to INSTALLED_APPS."
        )
        raise TemplateDoesNotExist(
            remedy, tried=error.tried, backend=error.backend, chain=error.chain
        ) from error


def _lacks_partials(template: str, error: TemplateDoesNotExist) -> bool:
    """Whether it was not found because the part behind ``#`` counted as the name of a file."""
    if "#" not in template or str(error) != template:
        return False
    return django.VERSION < _PARTIALS and not apps.is_installed("template_partials")
