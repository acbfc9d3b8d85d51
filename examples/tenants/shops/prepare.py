"""Makes the databases of both shops, each with a John who is in the group ``staff``. Idempotent."""

from __future__ import annotations

import os


def prepare() -> None:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shops.settings")
    django.setup()

    from django.conf import settings
    from django.contrib.auth.models import Group, User
    from django.core.management import call_command

    for shop in settings.SHOPS:
        call_command("migrate", database=shop, verbosity=0)
        group, _ = Group.objects.using(shop).get_or_create(name="staff")
        john, _ = User.objects.using(shop).get_or_create(username="john")
        john.set_password(shop)
        john.save(using=shop)
        john.groups.add(group)
        print(f"{shop}: john is ready")


if __name__ == "__main__":
    prepare()
