// The promises of ws4redis.mjs, on a fake WebSocket, a fake fetch and a fake clock.
// Run with: node --test tests/js/client.test.mjs

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { connect } from "../../ws4redis_tx/static/js/ws4redis.mjs";

const url = "ws://testserver/ws/orders?subscribe-user";
const RESUME = "ws4redis.resume";
const MINUTE = 60_000;

let world;

class FakeWebSocket {
  constructor(url, protocols) {
    this.url = String(url);
    this.protocols = protocols;
    this.protocol = "";
    this.readyState = 0;
    this.sent = [];
    this.closed = 0;
    world.sockets.push(this);
  }

  send(data) {
    assert.equal(this.readyState, 1);
    this.sent.push(data);
  }

  close() {
    this.closed += 1;
    this.readyState = Math.max(this.readyState, 2);
  }

  // What the network does:
  opens(protocol = RESUME) {
    this.protocol = protocol;
    this.readyState = 1;
    this.onopen?.({ type: "open" });
  }

  receives(data) {
    this.onmessage?.({ type: "message", data });
  }

  resumes(position = "p0", recovered = null, gap = []) {
    this.opens();
    this.receives(JSON.stringify({ position, recovered, gap }));
  }

  ends(code = 1006, reason = "") {
    this.readyState = 3;
    this.onclose?.({ type: "close", code, reason });
  }
}

// A question over HTTP, and its answer.
class Asked {
  constructor(url, options) {
    this.url = String(url);
    this.options = options;
    this.aborted = false;
    this.pieces = [];
    this.answer = new Promise((resolve, reject) => {
      this.answered = resolve;
      this.fails = reject;
    });
    options.signal.addEventListener("abort", () => {
      this.aborted = true;
      this.fails(new DOMException("aborted", "AbortError"));
      this.wakes?.reject(new DOMException("aborted", "AbortError"));
    });
    world.asked.push(this);
  }

  async answers(status, ...texts) {
    const read = () =>
      new Promise((resolve, reject) => {
        this.wakes = { resolve, reject };
        this.proceed();
      });
    this.answered({ status, ok: status === 200, body: { getReader: () => ({ read }) } });
    for (const text of texts) {
      await this.sends(text);
    }
    if (status !== 200) {
      await this.sends(null);
    }
  }

  proceed() {
    if (this.wakes && this.pieces.length) {
      const text = this.pieces.shift();
      const value = typeof text === "string" ? new TextEncoder().encode(text) : text;
      this.wakes.resolve(text === null ? { done: true } : { done: false, value });
      this.wakes = null;
    }
  }

  // null: the end
  async sends(text) {
    this.pieces.push(text);
    this.proceed();
    await settle();
  }

  opens(position = "p0", recovered = null, gap = []) {
    return this.answers(200, "retry: 2000\n\n", this.opening(position, recovered, gap));
  }

  opening(position, recovered, gap) {
    const told = JSON.stringify({ position, recovered, gap });
    const after = gap.length ? `event: gap\ndata: ${told}\nid: ${position}\n\n` : "";
    return `id: ${position}\nevent: open\ndata: ${told}\n\n${after}`;
  }
}

class Memory {
  items = new Map();
  getItem(key) {
    return this.items.get(key) ?? null;
  }
  setItem(key, value) {
    this.items.set(key, value);
  }
}

const FAKED = ["WebSocket", "fetch", "location", "document", "addEventListener", "Promise"];
const real = Object.fromEntries(FAKED.map((name) => [name, globalThis[name]]));
const random = Math.random;

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_000_000 });
  const page = new EventTarget();
  world = { sockets: [], asked: [], page, statuses: [], messages: [], warnings: [], errors: [], random: 1 };
  world.listeners = 0;
  globalThis.WebSocket = FakeWebSocket;
  globalThis.fetch = (url, options) => new Asked(url, options).answer;
  globalThis.location = new URL("https://testserver/orders/");
  globalThis.document = { hidden: false };
  globalThis.addEventListener = (type, listener, options) => {
    world.listeners += 1;
    options.signal.addEventListener("abort", () => (world.listeners -= 1));
    page.addEventListener(type, listener, options);
  };
  Math.random = () => world.random;
  mock.method(console, "warn", (text) => world.warnings.push(text));
  mock.method(console, "error", (...texts) => world.errors.push(texts));
  // Collects what a page would hear of as unhandled rejections.
  world.unhandled = [];
  globalThis.Promise = class extends real.Promise {
    constructor(executor) {
      super(executor);
      real.Promise.prototype.then.call(this, null, (error) => world.unhandled.push(error));
    }
    static get [Symbol.species]() {
      return real.Promise;
    }
  };
});

afterEach(() => {
  world.feed?.close();
  mock.timers.reset();
  mock.restoreAll();
  Math.random = random;
  Object.assign(globalThis, real);
});

const settle = () => new real.Promise(setImmediate);
const last = () => world.sockets.at(-1);
const asked = () => world.asked.at(-1);
const states = () => world.statuses.map(({ state }) => state);
const status = () => world.statuses.at(-1);
const data = () => world.messages.map(([message]) => message);

// In steps: within one, the fake clock is at the end before the first timer is called.
async function tick(milliseconds) {
  for (let left = milliseconds; left > 0; left -= 4000) {
    mock.timers.tick(Math.min(left, 4000));
    await settle();
  }
}

async function happens(type) {
  world.page.dispatchEvent(new Event(type));
  await settle();
}

async function show(hidden) {
  globalThis.document.hidden = hidden;
  await happens("visibilitychange");
}

async function start(source = url, options = {}) {
  const feed = connect(source, options);
  world.feed = feed;
  feed.on("status", (status) => world.statuses.push(status));
  feed.on("message", (data, about) => world.messages.push([data, about]));
  await settle();
  return feed;
}

async function started(options = {}) {
  const feed = await start(url, options);
  last().resumes();
  return feed;
}

// The websocket does not open, and HTTP works: twice, then it stays.
async function start_events(source = url, options = {}) {
  const feed = await start(source, options);
  await lose_once();
  last().ends();
  await settle();
  return feed;
}

async function lose_once() {
  last().ends();
  await settle();
  await asked().opens("probed");
  await tick(1000);
}

// An open connection ends, and the next attempt starts exactly then.
async function assert_retries_after(milliseconds) {
  const before = world.sockets.length;
  assert.equal(status().state, "waiting");
  assert.equal(status().retryIn, milliseconds);
  if (milliseconds) {
    await tick(milliseconds - 1);
    assert.equal(world.sockets.length, before, `too early: before ${milliseconds} ms`);
  }
  await tick(1);
  assert.equal(world.sockets.length, before + 1, `nothing after ${milliseconds} ms`);
}

async function assert_ended() {
  const before = [world.sockets.length, world.asked.length, world.statuses.length];
  assert.equal(status().state, "closed");
  assert.equal(status().retryIn, null);
  assert.equal(world.listeners, 0);
  for (const type of ["online", "offline", "pagehide", "pageshow", "visibilitychange"]) {
    await happens(type);
  }
  world.feed.reconnect();
  world.feed.close();
  await tick(60 * MINUTE);
  assert.deepEqual([world.sockets.length, world.asked.length, world.statuses.length], before);
  assert.equal(world.feed.send("x"), false);
}

// The source

test("a relative URL is one of the page's host, and http means ws", async () => {
  for (const [given, expected] of [
    ["/ws/orders?subscribe-user", "wss://testserver/ws/orders?subscribe-user"],
    ["http://a.example/ws/", "ws://a.example/ws/"],
    ["https://a.example/ws/x?echo", "wss://a.example/ws/x?echo"],
    ["WSS://a.example/ws/", "wss://a.example/ws/"],
    [new URL("ws://a.example/ws/"), "ws://a.example/ws/"],
  ]) {
    await start(given);
    assert.equal(last().url, expected);
    world.feed.close();
  }
});

test("a URL that is empty or has no host throws: a template's variable may be empty", () => {
  for (const given of ["", "orders?subscribe-user", "?subscribe-user", undefined, null, 5, {}]) {
    assert.throws(() => connect(given), { name: "TypeError", message: /is no URL/ });
  }
});

test("a function is asked for the URL before each attempt, for a fresh ticket", async () => {
  let tickets = 0;
  await start(() => `${url}&ticket=${(tickets += 1)}`);
  assert.match(last().url, /&ticket=1$/);
  last().resumes();
  last().ends();
  await tick(1000);
  assert.match(last().url, /&ticket=2&since=p0$/);
});

test("so is an async function, and the URL is used when it is there", async () => {
  let answer;
  await start(() => new real.Promise((resolve) => (answer = resolve)));
  assert.equal(world.sockets.length, 0);
  assert.deepEqual(states(), ["connecting"]);
  answer(url);
  await settle();
  assert.equal(last().url, url);
});

test("a websocket shows its ticket as a subprotocol, since proxies log URLs", async () => {
  let tickets = 0;
  await start(() => `${url}&ticket=ws4redis.ticket.${(tickets += 1)}&echo`);
  assert.equal(last().url, `${url}&&echo`);
  assert.deepEqual(last().protocols, ["ws4redis", "ws4redis.ticket.1", RESUME]);
  last().ends();
  await settle();
  assert.match(asked().url, /&ticket=ws4redis\.ticket\.2&echo$/);
});

test("the question why has a ticket of its own", async () => {
  let tickets = 0;
  await start(async () => `${url}&ticket=${(tickets += 1)}`);
  last().ends();
  await settle();
  assert.match(asked().url, /&ticket=2$/);
});

test("null closes the feed for good", async () => {
  await start(async () => null);
  assert.deepEqual(states(), ["connecting", "closed"]);
  assert.equal(status().code, null);
  await assert_ended();
});

test("a function that rejects or throws is asked again after the back-off", async () => {
  let calls = 0;
  await start(async () => {
    calls += 1;
    if (calls === 1) {
      throw new Error("no ticket today");
    }
    return url;
  });
  assert.match(status().reason, /no ticket today/);
  await assert_retries_after(1000);
  world.feed.close();
  await start(() => {
    throw new Error("at once");
  });
  assert.match(status().reason, /at once/);
  assert.equal(status().state, "waiting");
});

test("a function that answers something else is told why, and asked again", async () => {
  await start(() => "");
  assert.match(status().reason, /"" is no URL/);
  assert.equal(status().state, "waiting");
});

test("a function that never answers is asked again after the deadline", async () => {
  let calls = 0;
  await start(() => {
    calls += 1;
    return new real.Promise(() => {});
  });
  await tick(15_000);
  assert.equal(status().reason, "timeout");
  await tick(1000);
  assert.equal(calls, 2);
});

test("an answer that comes after the end opens nothing", async () => {
  let answer;
  const feed = await start(() => new real.Promise((resolve) => (answer = resolve)));
  feed.close();
  answer(url);
  await settle();
  assert.equal(world.sockets.length, 0);
});

// Options and handlers

test("an unknown option throws and names the known ones", () => {
  assert.throws(() => connect(url, { heartbeat: "x" }), {
    name: "TypeError",
    message: 'ws4redis: no "heartbeat", only heartbeat_msg,json,signal,since,storage',
  });
});

test("an unknown event and a handler that is no function throw", async () => {
  const feed = await start();
  assert.throws(() => feed.on("mesage", () => {}), { message: 'ws4redis: no "mesage", only message,status' });
  for (const handler of [undefined, null, "show", {}]) {
    assert.throws(() => feed.on("message", handler), { name: "TypeError", message: /only function/ });
  }
  await assert.rejects(feed.once("mesage"), TypeError);
  world.unhandled.length = 0;
});

test("the first attempt waits for the caller's code, which can set handlers first", async () => {
  const feed = connect(url);
  assert.equal(world.sockets.length, 0);
  assert.equal(feed.status.state, "connecting");
  feed.close();
  await settle();
  assert.equal(world.sockets.length, 0);
});

test("on() returns its own undo", async () => {
  const feed = await started();
  const heard = [];
  const handler = (data) => heard.push(data);
  const undo = [feed.on("message", handler), feed.on("message", handler)];
  last().receives("p1\n1");
  assert.equal(undo[0](), undefined);
  last().receives("p2\n2");
  undo[0]();
  undo[1]();
  last().receives("p3\n3");
  assert.deepEqual(heard, ["1", "1", "2"]);
});

test("a handler may undo another one, and one that is set meanwhile hears from the next message on", async () => {
  const feed = await started();
  const heard = [];
  feed.on("message", (data) => {
    undo();
    feed.on("message", (data) => heard.push(["new", data]));
  });
  const undo = feed.on("message", (data) => heard.push(["old", data]));
  last().receives("p1\n1");
  assert.deepEqual(heard, []);
  last().receives("p2\n2");
  assert.deepEqual(heard, [["new", "2"]]);
});

test("a handler that throws is told of as an unhandled rejection, and stops nothing", async () => {
  const feed = await start();
  feed.on("message", () => {
    throw new Error("mine");
  });
  feed.on("message", (data) => world.messages.push([data]));
  last().resumes();
  last().receives("p1\n1");
  await settle();
  assert.deepEqual(data(), ["1", "1"]);
  assert.deepEqual(world.unhandled.map(String), ["Error: mine"]);
  last().receives("p2\n2");
  assert.deepEqual(data(), ["1", "1", "2", "2"]);
});

// One status

test("the status is one object: state, code, reason, retryIn, gap, transport", async () => {
  const feed = await start();
  last().resumes("p0");
  last().ends(1012, "restart");
  await settle();
  const none = { code: null, reason: "", retryIn: null, gap: null, transport: null };
  assert.deepEqual(world.statuses, [
    { ...none, state: "connecting" },
    { ...none, state: "open", transport: "websocket" },
    { ...none, state: "waiting", code: 1012, reason: "restart", retryIn: 1000 },
  ]);
  assert.equal(feed.status, status());
});

test("retryIn is null when no attempt follows", async () => {
  const feed = await started();
  feed.close();
  assert.deepEqual(status(), {
    state: "closed", code: null, reason: "closed", retryIn: null, gap: null, transport: null,
  });
  await assert_ended();
});

// once, and loops

test("once() resolves with the data of the next message, or the next status", async () => {
  const feed = await started();
  const message = feed.once("message");
  last().receives("p1\n1");
  last().receives("p2\n2");
  assert.equal(await message, "1");
  const next = feed.once("status");
  last().ends();
  assert.equal((await next).state, "waiting");
});

test("once() rejects if the feed is closed first, or was", async () => {
  const feed = await started();
  const message = feed.once("message");
  const next = feed.once("status");
  feed.close();
  await assert.rejects(message, /closed/);
  assert.equal((await next).state, "closed");
  await assert.rejects(feed.once("message"), /closed/);
  world.unhandled.length = 0;
});

test("a loop gets the messages in order, with their positions", async () => {
  const feed = await started();
  const got = [];
  const done = (async () => {
    for await (const message of feed) {
      got.push(message);
      if (message.data === "3") {
        break;
      }
    }
  })();
  last().receives("p1,r\n1");
  last().receives("p2\n2");
  await settle();
  last().receives("p3\n3");
  await done;
  assert.deepEqual(got, [
    { data: "1", position: "p1", replayed: true, dropped: 0 },
    { data: "2", position: "p2", replayed: false, dropped: 0 },
    { data: "3", position: "p3", replayed: false, dropped: 0 },
  ]);
});

test("a loop that is 1000 messages behind loses the oldest, and is told how many", async () => {
  const feed = await started();
  const loop = feed[Symbol.asyncIterator]();
  const first = loop.next();
  for (let number = 0; number <= 1003; number += 1) {
    last().receives(`p${number}\n${number}`);
  }
  const { data, dropped } = (await first).value;
  assert.deepEqual([data, dropped], ["4", 4]);
  const next = (await loop.next()).value;
  assert.deepEqual([next.data, next.dropped], ["5", 0]);
  await loop.return();
  assert.equal(world.messages.length, 1004); // handlers lose nothing
});

test("a loop ends when the feed is closed, at once if the page closes it", async () => {
  const feed = await started();
  const got = [];
  const waiting = (async () => {
    for await (const { data } of feed) {
      got.push(data);
      feed.close();
    }
  })();
  last().receives("p1\n1");
  last().receives("p2\n2");
  await waiting;
  assert.deepEqual(got, ["1"]);
  for await (const _ of feed) {
    assert.fail();
  }
  world.unhandled.length = 0;
});

test("a loop gets what had arrived before a refusal", async () => {
  const feed = await started();
  const loop = feed[Symbol.asyncIterator]();
  const first = loop.next();
  last().receives("p1\n1");
  last().receives("p2\n2");
  last().ends(1008);
  await tick(1000);
  last().ends();
  await settle();
  await asked().answers(403, "No.");
  assert.equal(status().state, "closed");
  assert.equal((await first).value.data, "1");
  assert.equal((await loop.next()).value.data, "2");
  assert.equal((await loop.next()).done, true);
});

// AbortSignal, send, close, reconnect

test("an AbortSignal closes the feed", async () => {
  const control = new AbortController();
  await start(url, { signal: control.signal });
  last().resumes();
  control.abort();
  assert.equal(last().closed, 1);
  await assert_ended();
});

test("a signal that was aborted before opens nothing", async () => {
  await start(url, { signal: AbortSignal.abort() });
  assert.equal(world.sockets.length, 0);
  await assert_ended();
});

test("send() returns whether an open websocket took it", async () => {
  const feed = await start();
  assert.equal(feed.send("early"), false);
  last().resumes();
  assert.equal(feed.send("hello"), true);
  assert.deepEqual(last().sent, ["hello"]);
  last().readyState = 2;
  assert.equal(feed.send("closing"), false);
  last().ends();
  assert.equal(feed.send("late"), false);
});

test("close() ends it for good, in whatever state", async () => {
  const until = {
    connecting: () => start(),
    opening: async () => (await start(), last().opens()),
    open: () => started(),
    asking: async () => (await start(), last().ends(), await settle()),
    waiting: async () => (await started(), last().ends(), await settle()),
    events: async () => (await start_events(), await asked().opens()),
  };
  for (const reach of Object.values(until)) {
    await reach();
    world.feed.close();
    await assert_ended();
  }
});

test("close() inside a handler of a status ends it, too", async () => {
  for (const state of ["connecting", "open", "waiting"]) {
    const feed = connect(url);
    world.feed = feed;
    feed.on("status", (status) => {
      world.statuses.push(status);
      if (status.state === state) {
        feed.close();
      }
    });
    await settle();
    if (state !== "connecting") {
      last().resumes();
      last().ends();
    }
    await assert_ended();
  }
});

test("reconnect() leaves the connection and tries at once, in whatever state", async () => {
  const feed = await start();
  for (const reach of [() => {}, () => last().resumes(), () => (last().resumes(), last().ends())]) {
    reach();
    const left = last();
    const before = world.sockets.length;
    feed.reconnect();
    await settle();
    assert.equal(world.sockets.length, before + 1);
    assert.equal(left.readyState >= 2, true);
    left.receives("p9\nof the one that was left");
    left.ends();
  }
  assert.deepEqual(data(), []);
  await tick(60_000);
});

test("reconnect() right after connect() makes one attempt", async () => {
  let calls = 0;
  world.feed = connect(() => {
    calls += 1;
    return url;
  });
  world.feed.reconnect();
  await settle();
  assert.deepEqual([calls, world.sockets.length], [1, 1]);
});

test("an error without an end, as Node tells it, is a failed attempt", async () => {
  await start();
  last().onerror({ type: "error" });
  await settle();
  assert.equal(world.asked.length, 1);
});

test("leaving a websocket that is connecting counts as no failure, though Node tells an error", async () => {
  const feed = await start();
  const left = last();
  left.close = () => left.onerror?.({ type: "error" });
  feed.reconnect();
  await settle();
  assert.equal(world.sockets.length, 2);
  assert.equal(world.asked.length, 0);
});

// JSON

test("json decodes each message", async () => {
  await started({ json: true });
  last().receives('p1\n{"a": [1, "\\n"]}');
  last().receives("p2\n7");
  assert.deepEqual(data(), [{ a: [1, "\n"] }, 7]);
});

test("a message that is no JSON is told in the console, and the position moves on", async () => {
  await started({ json: true });
  last().receives("p1\nhello");
  last().receives(new TextEncoder().encode("p2\n\xff").buffer);
  last().receives("p3\n");
  assert.deepEqual(data(), []);
  assert.deepEqual(world.errors.map(([text]) => text), Array(3).fill("ws4redis: not JSON:"));
  assert.equal(world.errors[0][1], "hello");
  last().receives("p4\n1");
  assert.deepEqual(world.messages, [[1, { position: "p4", replayed: false }]]);
});

test("without json a message is a string, or an ArrayBuffer if it is binary", async () => {
  await started();
  assert.equal(last().binaryType, "arraybuffer");
  last().receives("p1\na\nb");
  last().receives(new Uint8Array([112, 50, 10, 255, 10, 0]).buffer);
  assert.equal(data()[0], "a\nb");
  assert.deepEqual([...new Uint8Array(data()[1])], [255, 10, 0]);
  assert.deepEqual(world.messages.map(([, about]) => about.position), ["p1", "p2"]);
});

// Resume

test("it offers to resume, and comes back with its last position", async () => {
  await start();
  assert.deepEqual(last().protocols, ["ws4redis", RESUME]);
  assert.equal(last().url, url);
  last().resumes("p0");
  last().receives("p1\n1");
  last().receives("p2"); // a mark
  last().ends();
  await tick(1000);
  assert.equal(last().url, `${url}&since=p2`);
  last().resumes("p2", true);
  last().receives("p3,r\n3");
  last().receives("p4\n4");
  assert.deepEqual(world.messages.slice(1), [
    ["3", { position: "p3", replayed: true }],
    ["4", { position: "p4", replayed: false }],
  ]);
});

test("gap: null if nothing was asked, [] if nothing was missed, else the audiences", async () => {
  await started();
  assert.equal(status().gap, null);
  last().ends();
  await tick(1000);
  last().resumes("p1", true);
  assert.deepEqual(status().gap, []);
  last().ends();
  await tick(2000);
  last().resumes("p2", false, ["group", "user"]);
  assert.deepEqual(status().gap, ["group", "user"]);
});

test("a later gap is told as another status", async () => {
  await started();
  last().receives(JSON.stringify({ position: "p5", recovered: false, gap: ["user"] }));
  assert.deepEqual(states(), ["connecting", "open", "open"]);
  assert.deepEqual(status().gap, ["user"]);
  last().ends();
  await tick(1000);
  assert.match(last().url, /since=p5$/);
});

test("it is open when the server has spoken", async () => {
  await start();
  last().opens();
  assert.deepEqual(states(), ["connecting"]);
  last().receives('{"position": "p0", "recovered": null, "gap": []}');
  assert.deepEqual(states(), ["connecting", "open"]);
});

test("since is the position of a rendered page", async () => {
  await start(url, { since: "page", storage: new Memory() });
  assert.equal(last().url, `${url}&since=page`);
  last().resumes("p1", true);
  last().ends();
  await tick(1000);
  assert.equal(last().url, `${url}&since=p1`);
  world.feed.close();
  await start("/ws/news", { since: "page" });
  assert.equal(last().url, "wss://testserver/ws/news?&since=page");
  world.feed.close();
  await start(url, { since: "" }); // Redis was down
  assert.equal(last().url, url);
});

test("a storage keeps the position across page loads, whatever the ticket", async () => {
  const storage = new Memory();
  await start(() => `${url}&ticket=1`, { storage });
  last().resumes("p0");
  last().receives("p1\n1");
  world.feed.close();
  await start(() => `${url}&ticket=2`, { storage });
  assert.match(last().url, /ticket=2&since=p1$/);
  assert.deepEqual([...storage.items.keys()], [`ws4redis:${url}`]);
  world.feed.close();
  await start("ws://testserver/ws/other", { storage });
  assert.equal(last().url, "ws://testserver/ws/other");
});

test("since counts more than the storage", async () => {
  const storage = new Memory();
  storage.setItem(`ws4redis:${url}`, "old");
  await start(url, { storage, since: "page" });
  assert.match(last().url, /since=page$/);
});

test("a storage that is forbidden or full does no harm", async () => {
  const fail = () => {
    throw new Error("forbidden");
  };
  await start(url, { storage: { getItem: fail, setItem: fail } });
  last().resumes("p0");
  last().receives("p1\n1");
  assert.deepEqual(data(), ["1"]);
});

test("a server that knows no positions sends messages as they are", async () => {
  await start(url, { since: "page" });
  last().opens("");
  assert.equal(status().state, "open");
  assert.equal(status().gap, null);
  last().receives("p1\n1");
  assert.deepEqual(world.messages, [["p1\n1", { position: null, replayed: false }]]);
  last().ends();
  await tick(1000);
  assert.equal(last().url, url);
});

// A dead network

test("a server that marks positions and falls silent is left after 35 s", async () => {
  await started();
  await tick(34_999);
  assert.equal(status().state, "open");
  await tick(1);
  assert.deepEqual([status().state, status().code, status().reason], ["waiting", 1006, "silence"]);
  assert.equal(last().closed, 1);
  await assert_retries_after(1000);
});

test("marks and messages are signs of life", async () => {
  await started();
  for (const frame of ["p1", "p2\n2", "p3", "p4"]) {
    await tick(30_000);
    last().receives(frame);
  }
  await tick(34_999);
  assert.equal(status().state, "open");
});

test("without marks and heartbeat_msg there is no guess", async () => {
  await start();
  last().opens("");
  await tick(24 * 60 * MINUTE);
  assert.equal(status().state, "open");
  await happens("online");
  await show(true);
  await show(false);
  assert.equal(world.sockets.length, 1);
});

test("heartbeat_msg: a server without marks that falls silent is left after 15 s", async () => {
  await start(url, { heartbeat_msg: "--beat--" });
  last().opens("ws4redis");
  for (let times = 0; times < 5; times += 1) {
    await tick(5000);
    last().receives("--beat--");
  }
  assert.deepEqual(data(), []);
  await tick(14_999);
  assert.equal(status().state, "open");
  await tick(1);
  assert.equal(status().reason, "silence");
  assert.deepEqual(world.warnings, []);
});

test("heartbeat_msg without the server's setting says so once, and leaves the connection", async () => {
  await start(url, { heartbeat_msg: "--beat--" });
  last().opens("");
  await tick(15_000);
  assert.match(world.warnings[0], /heartbeat_msg.*WS4REDIS_HEARTBEAT/);
  await tick(5 * MINUTE);
  last().receives("hello");
  await tick(5 * MINUTE);
  assert.equal(world.warnings.length, 1);
  assert.equal(status().state, "open");
});

test("heartbeat_msg and marks in the place of heartbeats: nothing is said, and nothing sent", async () => {
  await started({ heartbeat_msg: "--beat--" });
  for (let times = 0; times < 20; times += 1) {
    await tick(5000);
    last().receives("p1");
  }
  assert.deepEqual([world.warnings, last().sent, data()], [[], [], []]);
});

test("heartbeat_msg and marks that are rarer than heartbeats: it says so once", async () => {
  await started({ heartbeat_msg: "--beat--" });
  await tick(20_000);
  last().receives("p1");
  assert.deepEqual(world.warnings, []);
  await tick(20_000);
  last().receives("p1");
  assert.match(world.warnings[0], /heartbeat_msg.*WS4REDIS_HEARTBEAT/);
  for (let times = 0; times < 5; times += 1) {
    await tick(20_000);
    last().receives("p1");
  }
  last().ends();
  await tick(1000);
  last().resumes();
  for (let times = 0; times < 5; times += 1) {
    await tick(20_000);
    last().receives("p1");
  }
  assert.equal(world.warnings.length, 1);
  assert.equal(status().state, "open");
});

test("heartbeat_msg: what a stalled network holds back comes together, and nothing is said", async () => {
  await started({ heartbeat_msg: "--beat--" });
  for (let times = 0; times < 5; times += 1) {
    await tick(20_000);
    for (const mark of ["p1", "p1", "p1", "p1"]) {
      last().receives(mark);
    }
  }
  assert.deepEqual(world.warnings, []);
});

test("without heartbeat_msg, rare marks are right", async () => {
  await started();
  for (let times = 0; times < 5; times += 1) {
    await tick(20_000);
    last().receives("p1");
  }
  assert.deepEqual(world.warnings, []);
});

// Server-sent events

test("HTTP is asked why a websocket did not open, with cookies, as a stream of events", async () => {
  await start("wss://testserver/ws/orders?subscribe-user&publish-user", { since: "p1" });
  last().ends();
  await settle();
  assert.equal(asked().url, "https://testserver/ws/orders?subscribe-user&publish-user&since=p1");
  assert.deepEqual(asked().options.headers, { Accept: "text/event-stream" });
  assert.equal(asked().options.credentials, "include");
});

test("if HTTP works, a websocket is tried once more", async () => {
  await start();
  last().ends();
  await settle();
  await asked().opens("p7");
  assert.equal(asked().aborted, true);
  assert.deepEqual(states(), ["connecting", "waiting"]);
  await assert_retries_after(1000);
  assert.equal(last().url, url); // the position of the question is not the feed's
});

test("after two websockets that did not open while HTTP works, events take their place", async () => {
  await start_events();
  await asked().opens("p1");
  assert.deepEqual([status().state, status().transport, status().gap], ["open", "events", null]);
  await asked().sends("data: old\nid: p2\n\n");
  await asked().sends('event: live\ndata: {"position": "p2"}\nid: p2\n\n');
  await asked().sends("data: a\ndata: \ndata: b\nid: p3\n\ndata: without an id\n\n");
  assert.deepEqual(world.messages, [
    ["old", { position: "p2", replayed: true }],
    ["a\n\nb", { position: "p3", replayed: false }],
    ["without an id", { position: "p3", replayed: false }],
  ]);
  assert.equal(world.feed.send("x"), false);
});

test("events may come in any pieces", async () => {
  await start_events();
  await asked().opens();
  const bytes = new TextEncoder().encode("data: naïve ✓ 🎉\u2028: x\nid: p1\n\n:\nid: p2\n\n");
  for (const byte of bytes) {
    await asked().sends(Uint8Array.of(byte));
  }
  assert.deepEqual(data(), ["naïve ✓ 🎉\u2028: x"]);
  await asked().sends(null);
  await tick(2000);
  assert.match(last().url, /since=p2$/);
});

test("an event is what a websocket's frame would be: binary, or a text with a CR", async () => {
  await start_events();
  await asked().opens();
  for (const bytes of [Buffer.from("a\revent: gap\r✓"), Buffer.of(255, 0), Buffer.from("\ufeff\r")]) {
    await asked().sends(`event: binary\ndata: ${bytes.toString("base64")}\nid: p1\n\n`);
  }
  await asked().sends("data: \n\n");
  await asked().sends("event: of a later edition\ndata: x\n\n");
  assert.equal(data()[0], "a\revent: gap\r✓");
  assert.deepEqual([...new Uint8Array(data()[1])], [255, 0]);
  assert.deepEqual(data().slice(2), ["\ufeff\r", ""]);
});

test("over events, a gap is told in the status, once", async () => {
  await start_events(url, { since: "page" });
  await asked().opens("p1", false, ["user"]);
  const open = () => world.statuses.filter(({ state }) => state === "open").map(({ gap }) => gap);
  assert.deepEqual(open(), [["user"]]);
  await asked().sends('event: gap\ndata: {"position": "p5", "recovered": false, "gap": ["group"]}\nid: p5\n\n');
  assert.deepEqual(open(), [["user"], ["group"]]);
});

test("over events, a gap is told though the stream ends between its two events", async () => {
  const storage = new Memory();
  await start_events(url, { since: "page", storage });
  const [opening, gap] = asked().opening("p1", false, ["user"]).split(/(?<=\n\n)/);
  await asked().answers(200, opening, null);
  const gaps = () => world.statuses.flatMap(({ gap }) => gap ?? []);
  const told = gaps().length;
  await tick(status().retryIn);
  if (!told) {
    assert.match(last().url, /since=page$/);
    assert.equal(storage.getItem(`ws4redis:${url}`), null);
    last().resumes("p2", false, ["user"]);
  }
  assert.deepEqual(gaps(), ["user"]);
  assert.match(gap, /^event: gap/);
});

test("when events end, a websocket is tried first, and one failure leads back to them", async () => {
  await start_events();
  await asked().opens("p1");
  await asked().sends("data: x\nid: p2\n\n");
  await asked().sends(null);
  assert.deepEqual([status().state, status().code, status().reason], ["waiting", 1006, "ended"]);
  await tick(2000);
  assert.equal(last().url, `${url}&since=p2`);
  last().ends();
  await settle();
  await asked().opens("p2", true);
  assert.deepEqual([status().state, status().transport, status().gap], ["open", "events", []]);
  world.feed.reconnect();
  await settle();
  last().resumes("p2", true);
  assert.equal(status().transport, "websocket");
  last().ends();
  await tick(8000);
  last().ends();
  await settle();
  await asked().opens("p2");
  assert.equal(status().state, "waiting"); // two in a row, as at first
});

test("twice in a row: a failure of HTTP in between counts", async () => {
  await start();
  await lose_once();
  last().ends();
  await settle();
  asked().fails(new TypeError());
  await settle();
  await tick(2000);
  last().ends();
  await settle();
  await asked().opens();
  assert.equal(status().state, "waiting");
});

test("a stream that ends at once is a server that is busy: websockets are tried on", async () => {
  await start();
  for (let times = 0; times < 5; times += 1) {
    last().ends();
    await settle();
    await asked().answers(200, "retry: 2000\n\n", null);
    assert.equal(status().state, "waiting");
    await tick(status().retryIn);
  }
  assert.equal(states().includes("open"), false);
  assert.equal(world.sockets.length, 6);
});

test("some other page with status 200 is no stream", async () => {
  await start_events();
  await asked().answers(200, "<html>Log in to this network\n\nplease</html>", null);
  assert.equal(status().state, "waiting");
  assert.deepEqual(data(), []);
});

test("a client that may publish listens at least", async () => {
  const both = "/ws/publish-news?subscribe-user&publish-user&Publish-Session";
  await start(both);
  for (let times = 0; times < 2; times += 1) {
    last().ends();
    await settle();
    assert.match(asked().url, /publish-news.*&publish-user&Publish-Session/);
    await asked().answers(400, "Server-sent events go one way.");
    assert.equal(asked().url, "https://testserver/ws/publish-news?subscribe-user&-user&-Session");
    await asked().opens();
    await tick(1000);
  }
  assert.equal(status().transport, "events");
  assert.equal(world.asked.length, 4);
});

test("events: comments are signs of life, and silence beyond 35 s ends them", async () => {
  await start_events();
  await asked().opens();
  for (let times = 0; times < 4; times += 1) {
    await tick(30_000);
    await asked().sends(":\n\n");
  }
  assert.equal(status().state, "open");
  await tick(35_000);
  assert.deepEqual([status().state, status().reason], ["waiting", "silence"]);
  assert.equal(asked().aborted, true);
});

test("a server that answers over HTTP but never speaks is given up after the deadline", async () => {
  await start();
  last().ends();
  await settle();
  await tick(15_000);
  assert.deepEqual([status().state, status().code], ["waiting", 1006]);
  assert.equal(asked().aborted, true);
});

test("without WebSocket, as in old Node, it listens over HTTP", async () => {
  delete globalThis.WebSocket;
  await start();
  await asked().opens();
  await tick(1000);
  await asked().opens("p1");
  assert.equal(status().transport, "events");
});

// Refusals

test("a 401 or 403 at the handshake ends it, and the body's reason reaches the status", async () => {
  for (const code of [401, 403]) {
    await start();
    last().ends();
    await settle();
    await asked().answers(code, "Log in ", "first.\n");
    assert.deepEqual(
      [status().state, status().code, status().reason, status().retryIn],
      ["closed", code, "Log in first.", null],
    );
    await assert_ended();
  }
});

test("any other answer is told, and it goes on", async () => {
  await start();
  for (const [code, body, reason] of [
    [400, "There is no right subscribe-usr.\n", "There is no right subscribe-usr."],
    [502, "<html>Bad Gateway</html>", ""],
    [404, "", ""],
  ]) {
    last().ends();
    await settle();
    await asked().answers(code, body);
    assert.deepEqual([status().state, status().code, status().reason], ["waiting", code, reason]);
    await tick(status().retryIn);
  }
});

test("nobody there: it goes on", async () => {
  await start();
  last().ends();
  await settle();
  asked().fails(new TypeError("Failed to fetch"));
  await settle();
  assert.deepEqual([status().state, status().code], ["waiting", 1006]);
  assert.match(status().reason, /Failed to fetch/);
  await assert_retries_after(1000);
});

test("HTTP is not asked when an open connection ends", async () => {
  await started();
  last().ends(1012);
  await tick(1000);
  assert.equal(world.asked.length, 0);
});

test("revoked (1008): one more attempt, and the end if that is refused", async () => {
  await started();
  last().ends(1008, "logged out");
  await settle();
  assert.deepEqual([status().code, status().reason], [1008, "logged out"]);
  await tick(1000);
  last().ends();
  await settle();
  await asked().answers(401, "Log in first.");
  await assert_ended();
});

// Back-off

test("attempts back off exponentially up to the cap, with full jitter", async () => {
  await start();
  for (const [part, ...ceilings] of [[1, 1, 2, 4, 8, 16, 30, 30], [0.25, 30], [0, 30]]) {
    world.random = part;
    for (const seconds of ceilings) {
      last().ends();
      await settle();
      asked().fails(new TypeError());
      await settle();
      await assert_retries_after(seconds * 1000 * part);
    }
  }
});

test("only a connection that lasted resets the back-off", async () => {
  await started();
  last().ends();
  await assert_retries_after(1000);
  last().resumes();
  await tick(5000);
  last().ends();
  await assert_retries_after(2000);
  last().resumes();
  await tick(5001);
  last().ends();
  await assert_retries_after(1000);
});

test("a hidden tab takes its time from the first failure on", async () => {
  await started();
  await show(true);
  last().ends();
  await assert_retries_after(30_000);
});

test("a tab that is waiting tries at once when it becomes visible", async () => {
  await started();
  await show(true);
  last().ends();
  await show(false);
  assert.equal(world.sockets.length, 2);
  await show(true); // no attempt is started twice
  await show(false);
  assert.equal(world.sockets.length, 2);
});

test("coming online cuts the wait short and starts the back-off anew", async () => {
  await started();
  for (let times = 0; times < 3; times += 1) {
    last().ends();
    await happens("online");
  }
  assert.equal(world.sockets.length, 4);
  last().resumes();
  last().ends();
  await assert_retries_after(1000);
});

test("going offline ends the connection, and it tries on by itself: the browser may be wrong", async () => {
  await started();
  await happens("offline");
  assert.deepEqual([status().state, status().reason], ["waiting", "offline"]);
  assert.equal(last().closed, 1);
  await happens("offline");
  assert.deepEqual(states(), ["connecting", "open", "waiting"]);
  await assert_retries_after(1000);
});

test("coming online leaves an open connection alone", async () => {
  await started();
  await happens("online");
  await show(false);
  await happens("pageshow");
  assert.equal(world.sockets.length, 1);
});

// Fault 22

test("fault 22: pagehide forgets the connection at once, pageshow resumes it, five times", async () => {
  await started();
  for (let times = 1; times <= 5; times += 1) {
    const left = last();
    left.receives(`p${times}\n${times}`);
    await happens("pagehide");
    assert.equal(left.closed, 1);
    await show(true);
    left.ends(); // a browser tells of it when it likes
    await tick(times % 2 ? 1000 : 10 * MINUTE);
    assert.equal(world.sockets.length, times);
    globalThis.document.hidden = false;
    await happens("pageshow");
    await happens("visibilitychange");
    assert.equal(world.sockets.length, times + 1);
    assert.equal(last().url, `${url}&since=p${times}`);
    last().resumes(`p${times}`, true);
  }
  assert.deepEqual(data(), ["1", "2", "3", "4", "5"]);
  assert.equal(status().state, "open");
});

test("fault 22: a page that is being left opens nothing when it is hidden, however long it was open", async () => {
  await started();
  await tick(30_000);
  const clock = Date.now;
  Date.now = () => clock() + MINUTE; // the machine slept
  await happens("pagehide");
  await show(true);
  await tick(MINUTE);
  Date.now = clock;
  assert.equal(world.sockets.length, 1);
  await show(false);
  assert.equal(world.sockets.length, 2);
});

test("fault 22: the same while it is connecting, waiting, or listening to events", async () => {
  for (const reach of [
    () => start(),
    async () => (await started(), last().ends(), await settle()),
    async () => (await start_events(), await asked().opens("p1")),
    () => start_events(),
  ]) {
    await reach();
    const before = world.sockets.length;
    const question = asked();
    await happens("pagehide");
    await tick(10 * MINUTE);
    assert.equal(world.sockets.length, before);
    assert.equal(question?.aborted ?? true, true);
    await happens("pageshow");
    assert.equal(world.sockets.length, before + 1);
    last().resumes("p2");
    assert.equal(status().state, "open");
    world.feed.close();
  }
});

// Fault 23

test("fault 23: waking proves life: a silent connection is left when the page becomes visible", async () => {
  await started();
  const clock = Date.now;
  Date.now = () => clock() + 10 * MINUTE;
  await show(false);
  Date.now = clock;
  assert.equal(world.sockets[0].closed, 1);
  assert.equal(world.sockets.length, 2);
  assert.deepEqual(states(), ["connecting", "open", "connecting"]);
});

test("fault 23: the same when it comes online", async () => {
  await started();
  const clock = Date.now;
  Date.now = () => clock() + 10 * MINUTE;
  await happens("online");
  Date.now = clock;
  assert.equal(world.sockets.length, 2);
});

test("a connection that was heard a moment ago stays when the page becomes visible", async () => {
  await started();
  await tick(20_000);
  await show(true);
  await tick(10_000);
  await show(false);
  assert.equal(world.sockets.length, 1);
});

test("fault 23: connecting has a deadline, at which HTTP is asked", async () => {
  await start();
  await tick(14_999);
  assert.equal(world.asked.length, 0);
  await tick(1);
  assert.equal(last().closed, 1);
  assert.equal(world.asked.length, 1);
  await tick(15_000);
  assert.deepEqual([status().state, status().reason], ["waiting", "timeout"]);
  await assert_retries_after(1000);
});

test("fault 23: a proxy that opens websockets and swallows what they carry is found out", async () => {
  await start();
  last().opens();
  await tick(35_000);
  assert.equal(world.asked.length, 1);
});

test("fault 23: offline and online while it is connecting", async () => {
  await start();
  const first = last();
  await happens("offline");
  assert.equal(first.closed, 1);
  await happens("online");
  assert.equal(world.sockets.length, 2);
  await happens("online"); // the attempt may be one of the network before
  assert.equal(world.sockets.length, 3);
  last().resumes();
  assert.equal(status().state, "open");
});

// Fault 24

const replay = () => {
  const from = Number(/since=p(\d+)/.exec(last().url)?.[1] ?? 0);
  const socket = last();
  socket.resumes(`p${from}`, from ? true : null);
  for (let number = from + 1; number <= 10; number += 1) {
    socket.receives(`p${number},r\n${number}`);
  }
};

async function at_message_3(act) {
  const feed = await start();
  let acted = false;
  feed.on("message", (data) => {
    if (data === "3" && !acted) {
      acted = true;
      act(feed);
    }
  });
  replay();
  await settle();
}

test("fault 24: after close() in the handler of message 3 of 10 comes nothing", async () => {
  const storage = new Memory();
  await at_message_3((feed) => feed.close());
  assert.deepEqual(data(), ["1", "2", "3"]);
  await assert_ended();
  await start(url, { storage });
  world.feed.on("message", () => world.feed.close());
  replay();
  assert.equal(storage.items.get(`ws4redis:${url}`), "p1");
});

test("fault 24: after close() the handlers behind it hear nothing of that message", async () => {
  const feed = connect(url);
  world.feed = feed;
  feed.on("message", () => feed.close());
  feed.on("message", () => assert.fail());
  await settle();
  last().resumes();
  last().receives("p1\n1");
  await settle();
  assert.deepEqual(world.unhandled, []);
});

test("fault 24: reconnect() in the handler of message 3 of 10 repeats and loses none", async () => {
  await at_message_3((feed) => feed.reconnect());
  assert.match(last().url, /since=p3$/);
  replay();
  assert.deepEqual(data(), ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]);
});

test("fault 24: throw in the handler of message 3 of 10 repeats and loses none", async () => {
  await at_message_3(() => {
    throw new Error("mine");
  });
  assert.deepEqual(data(), ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]);
  assert.equal(world.unhandled.length, 1);
});

test("fault 24: the same over events, whose rest may be in the same read", async () => {
  const events = [4, 5].map((number) => `data: ${number}\nid: p${number}\n\n`).join("");
  for (const act of ["close", "reconnect"]) {
    await start_events();
    await asked().opens("p3");
    world.messages = [];
    const undo = world.feed.on("message", () => (undo(), world.feed[act]()));
    await asked().sends(events);
    assert.deepEqual(data(), ["4"]);
    if (act === "reconnect") {
      assert.match(last().url, /since=p4$/);
    }
    world.feed.close();
  }
});

test("nothing is left after close(): no listener, no timer", async () => {
  const feed = await started();
  assert.equal(world.listeners, 5);
  feed.close();
  await assert_ended();
});

test("where there are no page and no events of a network, it works as well", async () => {
  for (const name of ["location", "document", "addEventListener"]) {
    delete globalThis[name];
  }
  await start(url);
  last().resumes();
  last().ends();
  await tick(1000);
  assert.equal(world.sockets.length, 2);
});
