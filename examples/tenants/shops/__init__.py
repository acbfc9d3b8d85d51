"""Two shops in one process, each with its own database and its own John.

From this folder:

    python -m shops.prepare
    twistd --nodaemon --pidfile= ws4redis --settings shops.settings --serve-django --embedded-redis

Log in as ``john`` on http://acme.localhost:8080/ with the password ``acme``, and on
http://bolt.localhost:8080/ with the password ``bolt``. Each John hears his own shop. Browsers find
these hosts on your own machine.
"""
