"""The examples in real browsers: Chromium, and Firefox where it may differ."""
