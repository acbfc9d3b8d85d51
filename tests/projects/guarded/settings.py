"""Its settings."""

from ws4redis_tx.policies import allow

SECRET_KEY = "a secret key of a site that exists for one test"
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "guardian",
    "ws4redis_tx",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "guardian.backends.ObjectPermissionBackend",
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
ROOT_URLCONF = "tests.projects.guarded"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "/static/"


def team(pk: int) -> object:
    from django.contrib.auth.models import Group

    return Group.objects.get(pk=pk)


# The permission is one for an object, here a group.
WS4REDIS_ALLOWED_CHANNELS = [
    allow("teams/<int:pk>", lambda request, pk: request.user.has_perm("auth.view_group", team(pk))),
]
