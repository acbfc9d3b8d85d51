"""``manage.py prepare_demo`` creates a database with the demo's two users."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.core.management.base import BaseCommand

USERNAMES = ("john", "mary")
PASSWORD = "secret"
GROUP = "chatters"


class Command(BaseCommand):
    """Idempotent: existing users keep their passwords, even changed ones."""

    help = "Creates the tables, and the users and the group of the chat demo, if they are missing."

    def handle(self, *args: Any, **options: Any) -> None:
        call_command("migrate", interactive=False, verbosity=0)
        users = get_user_model().objects
        group, _created = Group.objects.get_or_create(name=GROUP)
        for username in USERNAMES:
            user = users.filter(username=username).first()
            if user is None:  # hashing a password takes a third of a second
                user = users.create_user(username, password=PASSWORD)
            user.groups.add(group)
        self.stdout.write(
            f"Ready: log in as {' or '.join(USERNAMES)}, password {PASSWORD}; "
            f"both are in the group {GROUP}."
        )
