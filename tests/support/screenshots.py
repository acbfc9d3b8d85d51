"""Screenshots for the documentation. With ``WS4REDIS_SCREENSHOTS=1`` the tests write them, and
otherwise they take them only.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.support import ROOT

WANTED = os.environ.get("WS4REDIS_SCREENSHOTS", "") not in ("", "0")


def keep(name: str, picture: bytes) -> None:
    """Write ``docs/<name>.png``, if that is wanted."""
    if not picture.startswith(b"\x89PNG"):
        raise AssertionError(f"no picture: {picture[:20]!r}")
    if WANTED:
        (ROOT / "docs" / f"{name}.png").write_bytes(picture)


@inlineCallbacks
def keep_together(browser: Any, name: str, pages: Sequence[Any], width: int, height: int) -> Any:
    """The same of some pages side by side, each ``width`` by ``height``."""
    pictures = []
    for page in pages:
        yield page.resize(width, height)
        pictures.append(base64.b64encode((yield page.screenshot())).decode())
    gap = 16
    images = "".join(f'<img src="data:image/png;base64,{each}">' for each in pictures)
    style = f"margin:0;padding:{gap}px;display:flex;gap:{gap}px;background:#d7dfdb"
    frame = yield browser.new_page()
    yield frame.resize(len(pages) * (width + gap) + gap, height + 2 * gap)
    yield frame.run(
        f"document.body.style = {style!r}; document.body.innerHTML = {images!r};"
        "Promise.all([...document.images].map((each) => each.decode())).then(() => 0)"
    )
    keep(name, (yield frame.screenshot()))
