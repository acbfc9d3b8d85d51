"""``python -m tests.fuzz.run TARGET [libFuzzer's options]``, for the environment with atheris."""

from __future__ import annotations

import sys

import atheris
from twisted.logger import globalLogBeginner

with atheris.instrument_imports(include=["ws4redis_tx", "autobahn.websocket", "txredisapi"]):
    from tests.fuzz.inputs import TARGETS


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    name, *options = sys.argv[1:]
    target = TARGETS[name]
    globalLogBeginner.beginLoggingTo([lambda event: None], redirectStandardIO=False)
    atheris.Setup([sys.argv[0], *options], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
