"""The websocket transport: frames, close handshakes, pings.

The one place that knows Autobahn. It moves bytes, and must not know what they mean.
"""
