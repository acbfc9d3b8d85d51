"""The chat demo's settings, over a database of the test run's own."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "examples" / "chatserver"))

# Servers that a test starts in another process share the file.
if "CHATSERVER_DB" not in os.environ:
    _folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
    atexit.register(shutil.rmtree, _folder, ignore_errors=True)
    # Django remembers the first folder of session files that it sees.
    SESSION_FILE_PATH = _folder
    os.environ["CHATSERVER_DB"] = os.path.join(_folder, "test.sqlite3")

from chatserver.settings import *  # noqa: F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
WS4REDIS_HISTORY = WS4REDIS_ALLOWED_CHANNELS = None
WS4REDIS_CENTRIFUGE_URL = WS4REDIS_PRESENCE = None
# Most tests save users where there is no server to tell, nor a Redis.
WS4REDIS_REVOKE = False
