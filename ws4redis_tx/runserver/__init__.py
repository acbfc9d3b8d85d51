"""``manage.py runserver`` for the site and its websockets, with Django's reloader.

Knows Django's command, its reloader, and the two processes of it. It must not know what a websocket
or a request is: the service and the site serve both, as they do under ``twistd``.
"""
