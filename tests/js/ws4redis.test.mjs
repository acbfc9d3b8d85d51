// The promises of ws4redis.js, on a fake WebSocket and a fake clock.
// Run with: node --test tests/js/ws4redis.test.mjs

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { afterEach, beforeEach, mock, test } from "node:test";
import vm from "node:vm";

const source = new URL("../../ws4redis_tx/static/js/ws4redis.js", import.meta.url);
const script = new vm.Script(readFileSync(source, "utf8"), { filename: source.pathname });
const uri = "ws://testserver/ws/foobar?subscribe-broadcast";

class FakeWebSocket {
  static CONNECTING = 0;
  static OPEN = 1;
  static CLOSING = 2;
  static CLOSED = 3;

  constructor(uri, protocols) {
    this.uri = uri;
    this.protocols = protocols;
    this.protocol = "";
    this.readyState = FakeWebSocket.CONNECTING;
    this.sent = [];
    world.sockets.push(this);
  }

  send(data) {
    assert.equal(this.readyState, FakeWebSocket.OPEN);
    this.sent.push(data);
  }

  close() {
    if (this.readyState < FakeWebSocket.CLOSING) {
      this.readyState = FakeWebSocket.CLOSING;
    }
  }

  // What the network does:
  opens(protocol = "") {
    this.protocol = protocol;
    this.readyState = FakeWebSocket.OPEN;
    this.onopen?.({ type: "open" });
  }

  receives(data) {
    this.onmessage?.({ type: "message", data });
  }

  ends(code = 1006) {
    this.readyState = FakeWebSocket.CLOSED;
    this.onclose?.({ type: "close", code });
  }
}

let world;

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  world = { sockets: [], calls: [], listeners: new Set(), random: 1, warnings: [] };
  const globals = {
    WebSocket: FakeWebSocket,
    setTimeout,
    clearTimeout,
    setInterval,
    clearInterval,
    URL,
    console: { warn: (text) => world.warnings.push(text) },
    addEventListener: (type, listener) => type === "online" && world.listeners.add(listener),
    removeEventListener: (_type, listener) => world.listeners.delete(listener),
  };
  globals.self = globals;
  vm.createContext(globals);
  script.runInContext(globals);
  vm.runInContext("Math", globals).random = () => world.random;
  world.WS4Redis = globals.WS4Redis;
  world.globals = globals;
});

afterEach(() => mock.timers.reset());

function client(options = {}) {
  const record = (name) => (...args) => world.calls.push([name, ...args]);
  return world.WS4Redis({
    uri,
    connecting: record("connecting"),
    connected: record("connected"),
    disconnected: (event, retrying) => world.calls.push(["disconnected", event.code, retrying]),
    receive_message: record("receive_message"),
    heartbeat_msg: null,
    ...options,
  });
}

const last = () => world.sockets.at(-1);
const tick = (milliseconds) => mock.timers.tick(milliseconds);
const goes_online = () => world.listeners.forEach((listener) => listener());

// Lets the newest socket fail, and asserts that the next attempt starts exactly then.
function assert_retries_after(milliseconds, code) {
  const before = world.sockets.length;
  last().ends(code);
  tick(milliseconds - 1);
  assert.equal(world.sockets.length, before, `too early: before ${milliseconds} ms`);
  tick(1);
  assert.equal(world.sockets.length, before + 1, `nothing after ${milliseconds} ms`);
}

function assert_stopped() {
  const before = world.sockets.length;
  goes_online();
  tick(3_600_000);
  assert.equal(world.sockets.length, before);
  assert.equal(world.listeners.size, 0);
}

test("a missing uri is refused with an example of one", () => {
  for (const options of [undefined, {}, { uri: "" }, { uri: null }]) {
    assert.throws(() => world.WS4Redis(options), /needs the option `uri`.*\/ws\/foobar/);
  }
  assert.equal(world.sockets.length, 0);
});

test("a uri without a host is refused: the template's variable may be empty", () => {
  for (const uri of ["foobar?subscribe-broadcast", "?subscribe-user", "www.example.com/ws/f"]) {
    assert.throws(() => world.WS4Redis({ uri }), /WEBSOCKET_URI/);
  }
  assert.equal(world.sockets.length, 0);
  for (const uri of ["/ws/foobar", "wss://a.example/ws/", "https://a.example/ws/", "WS://a/"]) {
    world.WS4Redis({ uri });
  }
  assert.equal(world.sockets.length, 4);
});

test("an option that does not exist is told", () => {
  client({ recieve_message: () => null, heartbeat: "--beat--" });
  assert.equal(world.warnings.length, 2);
  assert.match(world.warnings[0], /"recieve_message".*uri, connecting, .*receive_message/);
  assert.match(world.warnings[1], /"heartbeat"/);
});

test("it connects at once, with and without new, and only uri is needed", () => {
  const with_new = new world.WS4Redis({ uri });
  const without = world.WS4Redis({ uri });
  assert.ok(with_new instanceof world.WS4Redis && without instanceof world.WS4Redis);
  assert.deepEqual(world.sockets.map((socket) => socket.uri), [uri, uri]);
  assert.equal(last().binaryType, "arraybuffer");
  last().opens();
  last().receives("hello");
  last().ends();
});

test("the callbacks tell the life of a connection in order", () => {
  client();
  last().opens();
  last().receives("hello");
  const bytes = new ArrayBuffer(3);
  last().receives(bytes);
  last().receives("");
  last().ends(1012);
  tick(1000);
  assert.deepEqual(world.calls, [
    ["connecting"],
    ["connected"],
    ["receive_message", "hello"],
    ["receive_message", bytes],
    ["receive_message", ""],
    ["disconnected", 1012, true],
    ["connecting"],
  ]);
});

test("the states are those of the WebSocket", () => {
  const ws4redis = client();
  const states = () => [
    ws4redis.get_state(),
    ws4redis.is_connecting(),
    ws4redis.is_connected(),
    ws4redis.is_closing(),
    ws4redis.is_closed(),
  ];
  assert.deepEqual(states(), [0, true, false, false, false]);
  last().opens();
  assert.deepEqual(states(), [1, false, true, false, false]);
  ws4redis.close();
  assert.deepEqual(states(), [2, false, false, true, false]);
  last().ends(1000);
  assert.deepEqual(states(), [3, false, false, false, true]);
});

test("send_message sends when open, and else throws an error that says what to do", () => {
  const { send_message } = client(); // usable as a bare function
  assert.throws(() => send_message("early"), /not connected.*is_connected\(\)/);
  last().opens();
  send_message("hello");
  assert.deepEqual(last().sent, ["hello"]);
  last().ends();
  assert.throws(() => send_message("late"), /not connected/);
});

test("attempts back off exponentially up to the cap", () => {
  client();
  for (const delay of [1000, 2000, 4000, 8000, 16000, 30000, 30000]) {
    assert_retries_after(delay);
  }
});

test("the delay is jittered over the whole range", () => {
  client();
  world.random = 0.25;
  assert_retries_after(250);
  world.random = 0.5;
  assert_retries_after(1000);
});

test("only a connection that lasted resets the back-off", () => {
  client();
  assert_retries_after(1000);
  last().opens();
  tick(4999);
  assert_retries_after(2000);
  last().opens();
  tick(5000);
  assert_retries_after(1000);
});

test("close() stops for good, in whatever state", () => {
  client().close(); // connecting
  last().ends();
  assert.deepEqual(world.calls.at(-1), ["disconnected", 1006, false]);
  assert_stopped();

  const open = client();
  last().opens();
  open.close();
  open.close();
  last().ends(1000);
  assert.deepEqual(world.calls.at(-1), ["disconnected", 1000, false]);
  assert_stopped();

  const waiting = client();
  last().ends();
  waiting.close();
  assert_stopped();
});

test("close() inside a callback stops, too", () => {
  const ws4redis = client({ disconnected: () => ws4redis.close() });
  last().ends();
  assert_stopped();
});

test("an exception in a callback does not prevent the reconnect", () => {
  client({
    disconnected() {
      throw new Error("of the page");
    },
  });
  assert.throws(() => last().ends(), /of the page/);
  tick(1000);
  assert.equal(world.sockets.length, 2);
});

test("revoked (1008): one attempt, and the end if that is refused", () => {
  client();
  last().opens();
  tick(60_000);
  assert_retries_after(1000, 1008);
  assert.deepEqual(world.calls.at(-2), ["disconnected", 1008, true]);
  last().ends(1006);
  assert.deepEqual(world.calls.at(-1), ["disconnected", 1006, false]);
  assert_stopped();
});

test("revoked (1008): life goes on if the one attempt is accepted", () => {
  client();
  last().opens();
  tick(60_000);
  assert_retries_after(1000, 1008);
  last().opens();
  tick(60_000);
  assert_retries_after(1000, 1006);
  assert_retries_after(2000, 1006);
});

test("the heartbeat is sent every five seconds and is not handed to the page", () => {
  client({ heartbeat_msg: "--beat--" });
  last().opens();
  tick(4999);
  assert.deepEqual(last().sent, []);
  for (let round = 0; round < 10; round += 1) {
    tick(5000);
    last().receives("--beat--");
  }
  assert.deepEqual(last().sent, Array(10).fill("--beat--"));
  assert.deepEqual(world.calls, [["connecting"], ["connected"]]);
  last().receives("--beat-- and more");
  assert.deepEqual(world.calls.at(-1), ["receive_message", "--beat-- and more"]);
});

test("three unanswered heartbeats end the connection without waiting for the close event", () => {
  client({ heartbeat_msg: "--beat--" });
  const dead = last();
  dead.opens();
  tick(19_999);
  assert.equal(dead.sent.length, 3);
  assert.equal(dead.readyState, FakeWebSocket.OPEN);
  tick(1);
  assert.equal(dead.readyState, FakeWebSocket.CLOSING);
  assert.deepEqual(world.calls.at(-1), ["disconnected", 1006, true]);
  tick(1000);
  assert.equal(world.sockets.length, 2);
  dead.ends(); // the browser's close event, late
  dead.receives("from the grave");
  assert.deepEqual(world.calls.at(-1), ["connecting"]);
  tick(60_000);
  assert.equal(world.sockets.length, 2);
});

test("any message answers a heartbeat", () => {
  client({ heartbeat_msg: "--beat--" });
  last().opens();
  for (let round = 0; round < 5; round += 1) {
    tick(15_000);
    last().receives("hello");
  }
  assert.equal(last().readyState, FakeWebSocket.OPEN);
  assert.equal(last().sent.length, 15);
});

test("without heartbeat_msg a silent connection stays", () => {
  client();
  last().opens();
  tick(3_600_000);
  assert.deepEqual(last().sent, []);
  assert.equal(world.sockets.length, 1);
});

test("no heartbeat outlives its connection", () => {
  client({ heartbeat_msg: "--beat--" });
  const first = last();
  first.opens();
  tick(5000);
  first.ends();
  tick(60_000);
  assert.equal(first.sent.length, 1);
});

test("a server that sends no heartbeat is told of once, with the setting", () => {
  client({ heartbeat_msg: "--beat--" });
  last().opens();
  tick(15_000);
  assert.deepEqual(world.warnings, []);
  for (let round = 0; round < 5; round += 1) {
    last().receives("hello"); // busy, so that the connection lasts
    tick(5000);
  }
  assert.equal(world.warnings.length, 1);
  assert.match(world.warnings[0], /"--beat--".*WS4REDIS_HEARTBEAT/);
  last().ends();
  tick(30_000);
  last().opens();
  tick(60_000);
  assert.equal(world.warnings.length, 1);
});

test("a silent server without heartbeat is told of before it is given up", () => {
  client({ heartbeat_msg: "--beat--" });
  last().opens();
  tick(20_000);
  assert.equal(world.warnings.length, 1);
});

test("nothing is said of a server that sends the heartbeat, nor without heartbeat_msg", () => {
  client({ heartbeat_msg: "--beat--" });
  last().opens();
  last().receives("--beat--");
  tick(3_600_000);
  client();
  last().opens();
  tick(3_600_000);
  assert.deepEqual(world.warnings, []);
});

test("a page on another host is told so once when it cannot connect", () => {
  world.globals.location = { hostname: "127.0.0.1" };
  client({ uri: "ws://localhost:8000/ws/foobar" });
  last().ends();
  assert.equal(world.warnings.length, 1);
  assert.match(world.warnings[0], /page is on 127\.0\.0\.1.*on localhost/);
  assert.match(world.warnings[0], /WS4REDIS_ALLOWED_ORIGINS/);
  assert.match(world.warnings[0], /cookie/);
  tick(60_000);
  last().ends();
  assert.equal(world.warnings.length, 1);
});

test("nothing is said on one host, in a connection that was open, or without a location", () => {
  world.globals.location = { hostname: "testserver" };
  client();
  last().ends();
  world.globals.location = { hostname: "other.example" };
  client();
  last().opens();
  last().ends();
  world.globals.location = { hostname: "testserver", href: "http://testserver:8000/page/" };
  client({ uri: "/ws/foobar" });
  last().ends();
  world.globals.location = { hostname: "" };
  client();
  last().ends();
  delete world.globals.location;
  client();
  last().ends();
  assert.deepEqual(world.warnings, []);
});

test("coming online cuts the wait short and starts the back-off anew", () => {
  client();
  assert_retries_after(1000);
  assert_retries_after(2000);
  last().ends();
  goes_online();
  assert.equal(world.sockets.length, 4);
  tick(60_000);
  assert.equal(world.sockets.length, 4, "the cancelled attempt must not follow");
  assert_retries_after(1000);
});

test("coming online leaves an open connection and a running attempt alone", () => {
  client();
  goes_online();
  last().opens();
  goes_online();
  assert.equal(world.sockets.length, 1);
});

test("it offers to resume, and a server that does not sends messages as they are", () => {
  client();
  assert.equal(JSON.stringify(last().protocols), '["ws4redis","ws4redis.resume"]');
  last().opens("ws4redis");
  last().receives("1.1\nhi");
  assert.deepEqual(world.calls.at(-1), ["receive_message", "1.1\nhi"]);
  last().ends();
  tick(1000);
  assert.equal(last().uri, uri);
});

test("it resumes from the last position, whatever came with it", () => {
  const resumed = [];
  client({ resumed: (status) => resumed.push({ ...status }) });
  assert.equal(last().uri, uri);
  const status = (position, recovered, gap) => JSON.stringify({ position, recovered, gap });
  const bytes = (text) => Uint8Array.from(text, (each) => each.charCodeAt(0)).buffer;
  const frames = [
    [status("1.a", null, []), "1.a"],
    ["2.a,r\nold", "2.a"],
    ["3.a\nnew\nline", "3.a"],
    ["4.a", "4.a"],
    ["5.a\n", "5.a"],
    [bytes("6.a\n\xff\n"), "6.a"],
    [status("7.a", false, ["user"]), "7.a"],
  ];
  for (const [frame, position] of frames) {
    last().opens("ws4redis.resume");
    last().receives(frame);
    last().ends();
    tick(60_000);
    assert.equal(last().uri, `${uri}&since=${position}`);
  }
  const heard = world.calls.filter(([name]) => name === "receive_message");
  const shown = heard.map(([, data, { position, replayed }]) => [
    typeof data === "string" ? data : [...new Uint8Array(data)], position, replayed,
  ]);
  assert.deepEqual(shown, [
    ["old", "2.a", true], ["new\nline", "3.a", false], ["", "5.a", false],
    [[0xff, 10], "6.a", false],
  ]);
  assert.deepEqual(JSON.stringify(resumed), '[{"recovered":false,"gap":["user"]}]');
});

test("the position is kept before the callback, which may throw or close", () => {
  const ws4redis = client({
    receive_message: () => {
      throw new Error("of the page");
    },
  });
  last().opens("ws4redis.resume");
  assert.throws(() => last().receives("3.a\nhi"), /of the page/);
  last().ends();
  tick(1000);
  assert.equal(last().uri, `${uri}&since=3.a`);
  ws4redis.close();
});

test("a storage keeps the position across page loads, if the browser lets it", () => {
  const kept = new Map();
  const storage = {
    getItem: (key) => kept.get(key) ?? null,
    setItem: (key, value) => kept.set(key, value),
  };
  client({ storage });
  last().opens("ws4redis.resume");
  last().receives("3.a\nhi");
  client({ storage, uri: `${uri}&since=2.a` });
  assert.equal(last().uri, `${uri}&since=2.a&since=3.a`);
  const forbidden = () => {
    throw new Error("forbidden");
  };
  client({ storage: { getItem: forbidden, setItem: forbidden } });
  last().opens("ws4redis.resume");
  last().receives("4.a\nhi");
  last().ends();
  tick(1000);
  assert.equal(last().uri, `${uri}&since=4.a`);
});

test("after close() nothing is received, even if the rest of a replay still comes", () => {
  const heard = [];
  const ws4redis = client({
    receive_message: (data) => {
      heard.push(data);
      if (heard.length === 3) {
        ws4redis.close();
      }
    },
  });
  last().opens("ws4redis.resume");
  for (let number = 1; number <= 10; number += 1) {
    last().receives(`${number}.a,r\n${number}`);
  }
  assert.deepEqual(heard, ["1", "2", "3"]);
});
