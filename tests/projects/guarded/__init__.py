"""The site of ``docs/security.md``, with django-guardian's permissions, and its own tests."""

urlpatterns: list[object] = []
