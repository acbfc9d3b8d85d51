"""A proxy of Django's own user, as sites have them."""

from __future__ import annotations

from django.contrib.auth.models import User


class Member(User):
    class Meta:
        app_label = "chat"
        proxy = True
