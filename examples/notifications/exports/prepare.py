"""``python -m exports.prepare`` creates the tables and two users. Idempotent."""

from __future__ import annotations

import os

USERNAMES = ("john", "mary")
PASSWORD = "secret"


def prepare() -> None:
    import django
    from django.core.management import call_command

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "exports.settings")
    django.setup()
    call_command("migrate", run_syncdb=True, interactive=False, verbosity=0)
    from django.contrib.auth import get_user_model

    users = get_user_model().objects
    for username in USERNAMES:
        if not users.filter(username=username).exists():
            users.create_user(username, password=PASSWORD)
    print(f"Ready: log in as {' or '.join(USERNAMES)}, password {PASSWORD}.")


if __name__ == "__main__":
    prepare()
