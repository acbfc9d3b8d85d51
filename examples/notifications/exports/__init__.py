"""An ordinary site with htmx: it shows how far a task is, and tells its user of the end.

Run it in this folder::

    npm install
    python -m exports.prepare
    twistd --nodaemon ws4redis --settings exports.settings --serve-django --embedded-redis \
        --listen tcp:8000:interface=127.0.0.1

Then open http://127.0.0.1:8000/, in two tabs.
"""
