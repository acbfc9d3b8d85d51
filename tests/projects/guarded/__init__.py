"""A site whose rights are django-guardian's, with tests of its own."""

urlpatterns: list[object] = []
