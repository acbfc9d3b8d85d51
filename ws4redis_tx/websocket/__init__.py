"""The websocket transport: frames, close handshakes, pings.

This is the only room that knows Autobahn. It moves bytes, and must not know what they mean.
"""
