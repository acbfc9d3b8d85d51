"""Redis becomes unavailable: no accepted and persisted message is lost, none arrives twice, and no
websocket is closed.

Each test is one fault; ``harness`` publishes through it and checks.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.internet.defer import DeferredQueue, inlineCallbacks
from twisted.internet.threads import deferToThread

from tests.programs.chaos.harness import ROUNDS, ChaosTestCase, ask, within
from tests.programs.chaos.proxy import COMMANDS, FROM_REDIS, PUBSUB, TO_REDIS
from tests.support.clocks import SteppingClock
from tests.support.redis import RedisServer, make_busy


class NetworkTests(ChaosTestCase):
    """Redis is well; the network is not."""

    @inlineCallbacks
    def replaced(self, *arguments: Any, **options: Any) -> Any:
        """A fault that replaces the pub/sub connection."""
        yield self.serve()
        before = self.broker.generation
        yield self.fault(*arguments, **options)
        self.assertGreaterEqual(self.broker.generation, before + ROUNDS)

    @inlineCallbacks
    def test_refused(self) -> Any:
        @inlineCallbacks
        def begin() -> Any:
            yield self.proxy.refuse()
            self.proxy.cut()
            yield self.when_lost()

        yield self.replaced(begin, self.proxy.accept)
        self.assertGreaterEqual(self.closed, ROUNDS)

    @inlineCallbacks
    def test_cut(self) -> Any:
        yield self.replaced(self.proxy.cut)

    @inlineCallbacks
    def test_cut_and_published_to_at_every_step_of_the_recovery(self) -> Any:
        yield self.replaced(
            self.proxy.cut, lambda: self.at_each_answer(lambda step: self.publish(1))
        )

    @inlineCallbacks
    def test_cut_and_published_to_at_one_step_of_the_recovery(self) -> Any:
        for chosen in range(8):
            yield self.fault(
                self.proxy.cut,
                lambda chosen=chosen: self.at_each_answer(
                    lambda step: step == chosen and self.publish(1)
                ),
            )

    @inlineCallbacks
    def test_cut_again_and_again_while_it_recovers(self) -> Any:
        def publish_and_cut(step: int) -> None:
            self.publish(1)
            if step % 9 == 8:  # another step of a recovery each time
                self.proxy.cut()

        def begin() -> None:
            self.proxy.cut()
            self.at_each_answer(publish_and_cut)

        @inlineCallbacks
        def end() -> Any:
            while self.broker.generation < generation + 5:
                yield self.when_lost()
                yield self.broker.when_available()

        yield self.serve()
        generation = self.broker.generation
        yield self.fault(begin, end)

    @inlineCallbacks
    def test_delayed(self) -> Any:
        yield self.fault(lambda: self.proxy.delay(0.1), lambda: self.proxy.delay(0))
        self.assertEqual(self.closed, 0)

    @inlineCallbacks
    def test_delayed_beyond_what_is_waited_for(self) -> Any:
        def begin() -> Any:
            self.proxy.delay(0.7)
            return self.mouths[0].when_closed()

        yield self.fault(begin, lambda: self.proxy.delay(0))
        self.assertGreaterEqual(self.closed, ROUNDS)

    @inlineCallbacks
    def test_half_open_both_connections(self) -> Any:
        def begin() -> Any:
            self.proxy.freeze()
            return self.mouths[0].when_closed()

        yield self.replaced(begin, self.proxy.thaw)
        self.assertGreaterEqual(self.closed, ROUNDS)

    @inlineCallbacks
    def test_half_open_nothing_comes_from_pubsub(self) -> Any:
        def begin() -> Any:
            self.proxy.freeze([PUBSUB], [FROM_REDIS])
            return self.when_lost()

        yield self.replaced(begin, self.proxy.thaw)
        self.assertEqual(self.closed, 0)

    @inlineCallbacks
    def test_half_open_commands_are_carried_out_and_their_answers_swallowed(self) -> Any:
        def begin() -> Any:
            self.proxy.freeze([COMMANDS], [FROM_REDIS])
            return self.mouths[0].when_closed()

        yield self.fault(begin, self.proxy.thaw)
        self.assertGreaterEqual(self.closed, ROUNDS)
        self.assertIn(self.first_spoken, self.ears[6].heard)

    @inlineCallbacks
    def test_half_open_commands_are_swallowed(self) -> Any:
        def begin() -> Any:
            self.proxy.freeze([COMMANDS], [TO_REDIS])
            return self.mouths[0].when_closed()

        yield self.fault(begin, self.proxy.thaw)
        self.assertGreaterEqual(self.closed, ROUNDS)

    @inlineCallbacks
    def test_half_closed_by_redis(self) -> Any:
        yield self.replaced(lambda: self.proxy.half_close(FROM_REDIS))

    @inlineCallbacks
    def test_half_closed_towards_redis(self) -> Any:
        yield self.replaced(lambda: self.proxy.half_close(TO_REDIS))

    @inlineCallbacks
    def test_half_closed_pubsub_only(self) -> Any:
        yield self.replaced(lambda: self.proxy.half_close(FROM_REDIS, [PUBSUB]))
        self.assertEqual(self.closed, 0)

    @inlineCallbacks
    def test_who_comes_while_pubsub_is_deaf_takes_nothing_from_those_who_were_there(self) -> Any:
        """The newcomer reads a persisted message from its key before the others have heard it."""
        yield self.serve()
        yield self.all_is_well()
        self.proxy.freeze([PUBSUB], [FROM_REDIS])
        self.publish()
        read: DeferredQueue[bytes] = DeferredQueue()
        get = self.broker.get

        def get_and_tell(channel: bytes) -> Any:
            def tell(message: Any) -> Any:
                read.put(channel)
                return message

            return get(channel).addCallback(tell)

        self.patch(self.broker, "get", get_and_tell)
        yield self.listen("b?subscribe-broadcast", ("broadcast:b",))
        yield within(read.get(), "it read the persisted message")
        self.proxy.thaw()
        yield self.recovered()
        yield self.all_is_well()
        self.check_what_was_heard()
        yield self.check_the_service()


class ServerTests(ChaosTestCase):
    """Redis itself is not well."""

    def remembering(self) -> list[str]:
        """Options for a server that keeps its saved data over a restart."""
        folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        self.addCleanup(shutil.rmtree, folder)
        return ["--dir", folder]

    def when_refused(self, *command: Any) -> Callable[[], Any]:
        """An end of the fault: run this command once two websockets have felt it."""

        @inlineCallbacks
        def end() -> Any:
            yield self.mouths[0].when_closed()
            yield self.mouths[1].when_closed()
            self.redis.command(*command)

        return end

    @inlineCallbacks
    def test_killed_and_back_with_what_it_had_saved(self) -> Any:
        options = self.remembering()
        self.redis.stop()
        self.start_redis(*options)

        def begin() -> Any:
            self.redis.command("SAVE")
            self.kill_redis()
            return self.when_lost()

        yield self.fault(begin, lambda: self.start_redis(*options), reachable=False)
        self.assertGreaterEqual(self.closed, ROUNDS)

    @inlineCallbacks
    def test_restarted_empty(self) -> Any:
        def begin() -> Any:
            self.kill_redis()
            self.forgotten()
            return self.when_lost()

        yield self.fault(begin, self.start_redis, reachable=False)
        self.assertGreaterEqual(self.closed, ROUNDS)

    @inlineCallbacks
    def test_stopped_by_sigstop(self) -> Any:
        def begin() -> Any:
            self.signal_redis(signal.SIGSTOP)
            self.addCleanup(self.signal_redis, signal.SIGCONT)
            return self.mouths[0].when_closed()

        yield self.fault(begin, lambda: self.signal_redis(signal.SIGCONT), reachable=False)
        self.assertGreaterEqual(self.closed, ROUNDS)

    @inlineCallbacks
    def test_client_kill(self) -> Any:
        def begin() -> None:
            for kind in ("normal", "pubsub"):
                self.redis.command("CLIENT", "KILL", "TYPE", kind)

        yield self.fault(begin)

    @inlineCallbacks
    def test_client_kill_pubsub(self) -> Any:
        yield self.fault(lambda: self.redis.command("CLIENT", "KILL", "TYPE", "pubsub"))
        self.assertEqual(self.closed, 0)

    @inlineCallbacks
    def test_a_replica_by_now_that_is_read_only(self) -> Any:
        other = RedisServer("--repl-diskless-sync-delay", "0")
        self.addCleanup(other.stop)

        def begin() -> Any:
            self.redis.command("REPLICAOF", "127.0.0.1", other.port)
            self.forgotten()  # it takes over the other's data
            return self.until(lambda: b"connected" in self.redis.command("ROLE"), "a replica")

        yield self.fault(begin, self.when_refused("REPLICAOF", "NO", "ONE"))
        self.assertTrue(self.refused)
        self.assertGreaterEqual(self.closed, ROUNDS)

    @inlineCallbacks
    def test_wrong_password(self) -> Any:
        def password(text: str) -> None:
            self.redis.command("ACL", "SETUSER", "server", "resetpass", f">{text}")
            self.redis.command("CLIENT", "KILL", "USER", "server")

        self.redis.command("ACL", "SETUSER", "server", "on", "~*", "&*", "+@all")
        password("right")
        self.address = replace(self.address, username="server", password="right")

        def begin() -> Any:
            password("wrong")
            return self.when_lost()

        yield self.fault(begin, lambda: password("right"))
        self.assertGreaterEqual(self.closed, ROUNDS)

    @inlineCallbacks
    def test_out_of_memory(self) -> Any:
        yield self.fault(
            lambda: self.redis.command("CONFIG", "SET", "maxmemory", 1),
            self.when_refused("CONFIG", "SET", "maxmemory", 0),
        )
        self.assertTrue(self.refused)
        self.assertGreaterEqual(self.closed, ROUNDS)

    @inlineCallbacks
    def test_loading(self) -> Any:
        options = self.remembering()
        options += ["--enable-debug-command", "local"]
        slowly = ("--key-load-delay", "5000", "--loading-process-events-interval-bytes", "1024")
        self.redis.stop()
        self.start_redis(*options)
        self.redis.command("DEBUG", "POPULATE", 5000)

        @inlineCallbacks
        def begin() -> Any:
            self.redis.command("SAVE")
            self.kill_redis()
            port = self.redis.port
            self.starting = deferToThread(RedisServer, *options, *slowly, port=port)
            yield self.until(lambda: is_loading(self.redis), "it answered LOADING")

        @inlineCallbacks
        def end() -> Any:
            self.assertTrue((yield deferToThread(is_loading, self.redis)))
            self.redis.command("CONFIG", "SET", "key-load-delay", 0)
            self.redis = yield self.starting

        yield self.fault(begin, end)
        self.assertTrue(self.refused)
        self.assertGreaterEqual(self.closed, ROUNDS)

    @inlineCallbacks
    def test_busy_with_a_script(self) -> Any:
        self.redis.stop()
        self.start_redis("--busy-reply-threshold", "1")

        @inlineCallbacks
        def begin() -> Any:
            yield make_busy(self, self.redis)
            yield self.mouths[0].say(next(self._numbers))

        yield self.fault(begin, self.when_refused("SCRIPT", "KILL"))
        self.assertTrue(self.refused)
        self.assertGreaterEqual(self.closed, ROUNDS)

    @inlineCallbacks
    def test_eval_is_renamed(self) -> Any:
        """Redis is restarted with another configuration, and later with the old one."""
        options = self.remembering()
        self.redis.stop()
        self.start_redis(*options)

        @inlineCallbacks
        def restart(*more: str, name: str) -> Any:
            self.redis.command("SAVE")
            self.kill_redis()
            yield self.when_lost()
            self.start_redis(*options, *more)
            self.eval = name

        @inlineCallbacks
        def begin() -> Any:
            yield restart("--rename-command", "EVAL", "renamed", name="renamed")
            yield self.recovered()
            yield self.all_is_well()

        yield self.fault(begin, lambda: restart(name="EVAL"))

    @inlineCallbacks
    def test_its_clock_steps(self) -> Any:
        """By half an hour, so that nothing expires."""
        clock = SteppingClock(self)
        self.redis.stop()
        self.start_redis(environment=clock.environment)

        @inlineCallbacks
        def step(seconds: int) -> Any:
            clock.step(seconds)
            self.proxy.cut()
            self.publish()
            yield self.when_lost()
            yield self.recovered()
            yield self.all_is_well()

        for seconds in (-1800, 1800):
            yield self.fault(partial(step, seconds), partial(step, -seconds))


def is_loading(redis: RedisServer) -> bool:
    try:
        (answer,) = ask(redis.port, ("GET", "a"))
    except OSError:
        return False
    return str(answer).startswith("LOADING")
