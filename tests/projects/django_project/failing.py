"""Settings that raise neither an ImportError nor one of Django's exceptions."""

import os

SECRET_KEY = os.environ["NO_SUCH_VARIABLE"]
