"""Settings that raise what is neither an ImportError nor Django's own."""

import os

SECRET_KEY = os.environ["NO_SUCH_VARIABLE"]
