"""The parts of each process of ``twistd ws4redis``, put together from its options."""

from __future__ import annotations

from twisted.application.service import Service

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.service import make_broker, make_service
from ws4redis_tx.system.launch import Inheritance, Launch
from ws4redis_tx.twistd.embedded_redis import EmbeddedRedis
from ws4redis_tx.twistd.options import Options
from ws4redis_tx.twistd.process import ServerProcess, Successor, Worker
from ws4redis_tx.twistd.supervisor import Supervisor
from ws4redis_tx.twistd.worker import inherited_endpoints
from ws4redis_tx.twistd.workers import Workers
from ws4redis_tx.websocket.service import make_endpoint


def make_server(options: Options) -> Service:
    """The service of a process that serves websockets: the only process, or a worker."""
    from twisted.internet import reactor

    config: ServerConfig = options["config"]
    descriptors: list[int | None] = [None] * len(config.listen)
    inheritance: Inheritance | None = options["inheritance"]
    process = ServerProcess
    if options["inherit"] is not None:
        process, descriptors = Worker, options["inherit"]
    elif inheritance is not None:
        process = Successor
        descriptors = [inheritance.take_socket(text) for text in config.listen]
    endpoints = inherited_endpoints(config.listen, descriptors, make_endpoint, reactor)
    broker = make_broker(config, reactor=reactor)
    websockets = make_service(config, broker=broker, endpoints=endpoints, reactor=reactor)
    websockets.stop_code = 1012
    websockets.drain = options["drain"]
    websockets.factory.session_server.log.share(options["processes"])
    requests = None
    if options["serve-django"]:
        from ws4redis_tx.django.site import make_django_site

        websockets.listener = site = make_django_site(websockets.factory, reactor)
        requests = site.threads
    return process(options, websockets, broker, _embedded_redis(options), requests)


def make_parent(options: Options) -> Service:
    """The service of the parent, which holds the sockets and starts the workers."""
    from twisted.internet import reactor

    make_server(options)  # reports mistakes now and once, not in each worker
    config: ServerConfig = options["config"]
    launch: Launch = options["launch"]
    redis = str(config.redis) if options["embedded-redis"] else None
    workers = Workers(
        options["workers"],
        launch.worker_command(options["arguments"], len(config.listen), redis),
        launch.folder,
        options["drain"],
        reactor,
        launch.environment,
    )
    endpoints = [make_endpoint(reactor, description) for description in config.listen]
    return ServerProcess(options, Supervisor(endpoints, workers, _embedded_redis(options)))


def _embedded_redis(options: Options) -> EmbeddedRedis | None:
    from twisted.internet import reactor

    if not options["embedded-redis"]:
        return None
    inheritance: Inheritance | None = options["inheritance"]
    running = None if inheritance is None else inheritance.redis
    return EmbeddedRedis(options["config"].redis.port, reactor, running)
