"""Taking away what a visitor may no longer have: what is told, whom it concerns, what is rechecked.

Knows what each session was admitted with. It must not know how a session's bytes travel.
"""
