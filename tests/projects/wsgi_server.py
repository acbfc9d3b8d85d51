"""An ordinary Django server: a thread a request, no reactor. Prints its port when it listens."""

from __future__ import annotations

import os
import socketserver
import wsgiref.simple_server


class Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.projects.django_project.settings"
    from django.core.wsgi import get_wsgi_application

    server = wsgiref.simple_server.make_server("127.0.0.1", 0, get_wsgi_application(), Server)
    print(f"port {server.server_port}", flush=True)
    server.serve_forever()
