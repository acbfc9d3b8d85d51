"""Pages are examined for faults, and faults are found. Otherwise the other tests prove nothing."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from tests.support.accessibility import WATCH_VIOLATIONS, faults_in_all_colours
from tests.support.browsers import start_browser

PAGE = """<!doctype html><html lang="en"><meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="script-src 'none'">
<title>Faults</title>
<style>
  input::placeholder { color: #999; }
  .faint { color: #222; }
  .wide { width: 500px; height: 9px; }
  button:disabled { opacity: 0.4; color: black; background: white; }
  .through { opacity: 0.3; }
</style>
<main><h1>Faults</h1><input placeholder="Name" aria-label="Name"><p class="faint">dark on dark</p>
<p class="through">half there</p><button disabled>Off</button><div class="wide"></div>
<img src="data:,">
<script>0</script></main></html>"""


class FaultsTests(TestCase):
    timeout = 120

    @inlineCallbacks
    def test_all_are_found(self) -> Any:
        browser = yield start_browser(self)
        page = yield browser.new_page()
        yield page.before_load(WATCH_VIOLATIONS)
        yield page.open("data:text/html," + PAGE.replace("#", "%23").replace("\n", " "))
        found = yield faults_in_all_colours(page)
        for part in (
            'light: contrast 2.85: <input placeholder="Name" aria-label="Name">::placeholder',
            "dark: contrast 1.1",
            'light: contrast 2.11: <p class="through">',
            "light: image-alt: img",
            "contrast 2.85: <button",
            "wider than a telephone",
            "script-src-elem inline",
        ):
            self.assertTrue(any(part in each for each in found), (part, found))
