"""Makes logged-in users with groups: ``python -m benchmarks.site.visitors NUMBER``.

The users ``visitor0`` to ``visitor9`` are in the groups ``everyone`` and ``tens0``, the next ten in
``everyone`` and ``tens1``, and so on. Prints the value of each user's Cookie header on its own
line.
"""

from __future__ import annotations

import sys
from datetime import timedelta

import django


def make_visitors(number: int) -> list[str]:
    from django.conf import settings
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.models import Group, User
    from django.contrib.sessions.backends.db import SessionStore
    from django.contrib.sessions.models import Session
    from django.core.management import call_command
    from django.utils.timezone import now

    call_command("migrate", verbosity=0)
    names = ["everyone", *(f"tens{index}" for index in range((number + 9) // 10))]
    everyone, *tens = Group.objects.bulk_create(Group(name=name) for name in names)
    users = User.objects.bulk_create(
        User(username=f"visitor{index}", password="!") for index in range(number)
    )
    membership = User.groups.through
    membership.objects.bulk_create(
        membership(user=user, group=group)
        for index, user in enumerate(users)
        for group in (everyone, tens[index // 10])
    )
    store = SessionStore()
    sessions = Session.objects.bulk_create(
        Session(
            session_key=store._get_new_session_key(),
            session_data=store.encode(
                {
                    SESSION_KEY: str(user.pk),
                    BACKEND_SESSION_KEY: settings.AUTHENTICATION_BACKENDS[0],
                    HASH_SESSION_KEY: user.get_session_auth_hash(),
                }
            ),
            expire_date=now() + timedelta(days=14),
        )
        for user in users
    )
    return [f"{settings.SESSION_COOKIE_NAME}={session.session_key}" for session in sessions]


if __name__ == "__main__":
    django.setup()
    print("\n".join(make_visitors(int(sys.argv[1]))))
