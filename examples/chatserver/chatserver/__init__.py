"""The chat demo's project: settings, URLs and views."""
