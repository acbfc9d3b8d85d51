"""The site of ``docs/security.md``, with the object permissions of django-guardian, and its tests."""

urlpatterns: list[object] = []
