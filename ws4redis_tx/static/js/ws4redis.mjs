/*
 * ws4redis.mjs: a connection that reconnects and resumes by itself.
 *
 *   import { connect } from "ws4redis";
 *
 *   const feed = connect("/ws/orders?subscribe-user", { json: true });
 *   const undo = feed.on("message", (data, { position, replayed }) => show(data));
 *   feed.on("status", ({ state, code, reason, retryIn, gap }) => tell(state));
 *
 * ws4redis.d.mts describes everything that a page can use, and docs/client.md is the guide.
 *
 * An attempt asks the source for the URL and opens a websocket. If that fails, the same URL is asked
 * over plain HTTP, which tells why: a refusal closes the feed. If HTTP has worked where two websockets
 * in a row have not opened, the answer, a stream of events, takes their place. Whatever ends a
 * connection, the next attempt is a websocket again.
 */

// Milliseconds, as all below.
const BACKOFF = 1000;
const BACKOFF_CAP = 30000;
const STABLE_AFTER = 5000;
const DEADLINE = 15000; // for an attempt
const SILENCE = 35000; // a server that knows positions sends something at least every 25 s
const HEARTBEAT_SILENCE = 15000; // with WS4REDIS_HEARTBEAT, any server does every 5 s
const NEVER = 2e9;

const LOOP_BOUND = 1000; // messages
const RESUME = "ws4redis.resume";

// Attempts: a websocket, if it is none of these.
const ASK = 1; // over HTTP, for the same rights
const LISTEN = 2; // over HTTP, without those to publish, which streams of events refuse

function check(names, name) {
  if (!names.includes(name)) {
    throw new TypeError(`ws4redis: no "${name}", only ${names}`);
  }
}

function absolute(url) {
  if (!/^(\/|(http|ws)s?:)/i.test(url)) {
    throw new TypeError(`ws4redis: "${url}" is no URL`);
  }
  return new URL(url, globalThis.location);
}

// A text with a carriage return comes as base64, as binary messages do.
function decode(base64) {
  const bytes = atob(base64); // a character for each
  try {
    return decodeURIComponent(escape(bytes)); // throws unless they are UTF-8
  } catch {
    return Uint8Array.from(bytes, (byte) => byte.charCodeAt()).buffer;
  }
}

export function connect(source, options = {}) {
  for (const name in options) {
    check(["heartbeat_msg", "json", "signal", "since", "storage"], name);
  }
  if (typeof source !== "function") {
    const url = source;
    absolute(url);
    source = () => url;
  }
  const { heartbeat_msg, json, signal, storage } = options;
  const handlers = { message: new Set(), status: new Set() };
  const closing = new AbortController(); // for good
  const closed = closing.signal;

  let status;
  let position = options.since;
  let storage_key;
  let link; // the connection, or the attempt at one; another object for each
  let opened; // when it did
  let failures = 0; // attempts since a connection that lasted
  let http_works; // it did when the last websocket did not open
  let heartbeat; // true: one was heard; false: the console says that none comes
  let timer;
  let due; // when the timer should run, by the wall clock

  function on(event, handler) {
    check(["message", "status"], event);
    check(["function"], typeof handler);
    const call = handler.bind(); // one of its own: the same handler may come twice
    handlers[event].add(call);
    return () => {
      handlers[event].delete(call);
    };
  }

  function tell(event, value, about) {
    for (const call of [...handlers[event]]) {
      if (handlers[event].has(call)) {
        // An error becomes an unhandled rejection, and the other handlers are called all the same.
        new Promise(() => call(value, about));
      }
    }
  }

  function report(told) {
    status = { code: null, reason: "", retryIn: null, gap: null, transport: null, ...told };
    tell("status", status);
  }

  // There is only one timer: a connection's silence, an attempt's deadline, or the next attempt.
  function after(delay, act) {
    clearTimeout(timer);
    due = Date.now() + delay;
    timer = setTimeout(act, delay);
  }

  function forget() {
    const left = link;
    if (Date.now() - opened > STABLE_AFTER) {
      failures = 0;
    }
    clearTimeout(timer);
    due = opened = link = undefined; // all of them: no event of the page revives what is left here
    left?.drop?.();
  }

  function ended(reason, code = 1006) {
    forget();
    // Full jitter: after a server restarts, its clients come back spread out. Hidden tabs have time.
    const ceiling = globalThis.document?.hidden ? BACKOFF_CAP : BACKOFF * 2 ** failures++;
    const delay = Math.random() * Math.min(BACKOFF_CAP, ceiling);
    after(delay, attempt);
    report({ state: "waiting", code, reason, retryIn: delay });
  }

  function stop(reason, code = null) {
    if (!closed.aborted) {
      forget();
      closing.abort();
      handlers.message.clear();
      report({ state: "closed", code, reason });
    }
  }

  const close = () => stop("closed");

  function stored(method) {
    try {
      return storage?.[method](storage_key, position);
    } catch {
      // It may be full, or forbidden.
    }
  }

  function keep(place) {
    position = place;
    stored("setItem");
  }

  function open(gap) {
    opened ||= Date.now();
    report({ state: "open", gap, transport: link.send ? "websocket" : "events" });
  }

  function open_at({ position, recovered, gap }) {
    keep(position);
    open(recovered === null ? null : gap);
  }

  function deliver(data, replayed) {
    try {
      tell("message", json ? JSON.parse(data) : data, { position, replayed });
    } catch {
      console.error("ws4redis: not JSON:", data); // an error of a handler does not get here
    }
  }

  // A mark, a status, or a message behind its position. The position goes first: the handler may
  // throw, close the feed, or reconnect.
  function take_frame(data) {
    const text = typeof data === "string" ? data : new TextDecoder("latin1").decode(data);
    if (text[0] === "{") {
      open_at(JSON.parse(text));
      return;
    }
    const [head] = text.split("\n", 1);
    const [place, flag] = head.split(",");
    keep(place);
    if (head !== text) {
      deliver(data.slice(head.length + 1), flag === "r");
    }
  }

  function open_socket(mine, url) {
    // A server of the first edition takes the first of these, and sends messages as they are.
    const offered = ["ws4redis"];
    // A websocket shows its ticket as the second, which then stays out of logs.
    url.search = url.search.replace(/ticket=(ws4redis\.[^&]+)/, (_, ticket) => {
      offered.push(ticket);
      return "";
    });
    const socket = new WebSocket(url, [...offered, RESUME]);
    let rare; // the last frame came later than it would if marks came as often as heartbeats
    let resumes;
    mine.drop = () => {
      // First: Node tells of an error at once.
      socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
      socket.close();
    };
    socket.binaryType = "arraybuffer";
    mine.send = (data) => socket.readyState === 1 && !socket.send(data);

    function miss_heartbeat() {
      if (heartbeat_msg && heartbeat === undefined) {
        heartbeat = false;
        console.warn("ws4redis: no heartbeat_msg. Set WS4REDIS_HEARTBEAT");
      }
    }

    function alive() {
      after(resumes ? SILENCE : heartbeat_msg ? HEARTBEAT_SILENCE : NEVER, () => {
        if (resumes || heartbeat) {
          mine.lost("silence");
        } else {
          miss_heartbeat();
        }
      });
    }

    socket.onopen = () => {
      resumes = socket.protocol === RESUME;
      alive();
      if (!resumes) {
        open(null);
      }
    };
    socket.onmessage = ({ data }) => {
      const late = resumes && due - Date.now() < SILENCE - HEARTBEAT_SILENCE;
      if (late && rare) {
        miss_heartbeat(); // once may be the network, but then the rest comes at once
      }
      rare = late;
      alive();
      http_works = false;
      if (heartbeat_msg && data === heartbeat_msg) {
        heartbeat = true;
      } else if (resumes) {
        take_frame(data);
      } else {
        position = null; // this server knows none, and the next one must not go back to it
        deliver(data, false);
      }
    };
    // Node does not close what has never opened.
    socket.onclose = socket.onerror = ({ code, reason = "" }) => mine.lost(reason, code);
  }

  async function open_events(mine, url, how) {
    const stays = http_works;
    const dropping = new AbortController();
    let replayed = true;
    let rest = "";

    function take_event(text) {
      const fields = {};
      for (const line of text.split("\n")) {
        const [name] = line.split(": ", 1);
        (fields[name] ||= []).push(line.slice(name.length + 2));
      }
      const data = fields.data?.join("\n");
      const type = fields.event?.[0];
      if (type === "gap" || type === "open") {
        const told = JSON.parse(data);
        http_works = true;
        if (!stays) {
          ended("no websocket");
        } else if (!told.gap[0] || type === "gap") {
          // An event "gap" repeats the gap of "open". The position waits for it, too: the stream may
          // end in between.
          open_at(told);
        }
        return;
      }
      if (fields.id) {
        keep(fields.id[0]);
      }
      if (type === "live") {
        replayed = false;
      } else if (type === "binary") {
        deliver(decode(data), replayed);
      } else if (fields.data && !type) {
        deliver(data, replayed);
      }
    }

    http_works = false;
    mine.drop = () => dropping.abort();
    const listening = url.search.replace(/publish-/gi, "-");
    const publishes = how === ASK && url.search !== listening;
    if (!publishes) {
      url.search = listening;
    }
    const { body, ok, status: code } = await fetch(url, {
      headers: { Accept: "text/event-stream" },
      credentials: "include",
      signal: dropping.signal,
    });
    const reader = body.getReader();
    const decoder = new TextDecoder();
    for (;;) {
      const { done, value } = await reader.read();
      if (link !== mine) {
        return;
      }
      if (done) {
        break;
      }
      rest += decoder.decode(value, { stream: true });
      if (ok) {
        after(SILENCE, () => mine.lost("silence"));
        const events = rest.split("\n\n");
        rest = events.pop();
        for (const event of events) {
          if (link === mine) {
            take_event(event);
          }
        }
      }
    }
    // Of a page in HTML, the status says enough.
    const reason = ok ? "ended" : rest[0] === "<" ? "" : rest.trim();
    if (code === 401 || code === 403) {
      stop(reason, code);
    } else if (code === 400 && publishes) {
      http_works = stays;
      attempt(LISTEN); // the rights are there, so listen at least
    } else {
      ended(reason, ok ? 1006 : code);
    }
  }

  async function attempt(how) {
    if (closed.aborted) {
      return;
    }
    forget();
    const mine = (link = {});
    let url;
    if (!how) {
      report({ state: "connecting" });
    }
    if (link !== mine) {
      return; // a handler closed the feed, say
    }
    mine.lost = (reason, code) => {
      if (how || opened || !url) {
        ended(reason, code);
      } else {
        attempt(ASK);
      }
    };
    after(DEADLINE, () => mine.lost("timeout"));
    try {
      const given = await source();
      if (link !== mine) {
        return;
      }
      if (given === null) {
        return close();
      }
      url = absolute(given);
      if (!storage_key) {
        storage_key = "ws4redis:" + url.href.replace(/[?&](since|ticket)=[^&]*/g, "");
        position ||= stored("getItem");
      }
      url.protocol = url.protocol.replace(/^(ws|http)/, how ? "http" : "ws");
      if (position) {
        url.search += "&since=" + position;
      }
      await (how ? open_events(mine, url, how) : open_socket(mine, url));
    } catch (error) {
      if (link === mine) {
        mine.lost(`${error}`);
      }
    }
  }

  function wake({ type }) {
    if (type === "pagehide") {
      // The browser must not keep a connection that nobody reads.
      forget();
    } else if (type === "offline") {
      if (link) {
        ended("offline");
      }
    } else if (
      Date.now() > due ||
      (type === "online"
        ? status.state !== "open"
        : !globalThis.document?.hidden && !link)
    ) {
      failures = 0;
      attempt();
    }
  }

  for (const type of ["online", "offline", "pagehide", "pageshow", "visibilitychange"]) {
    globalThis.addEventListener?.(type, wake, { signal: closed });
  }
  signal?.addEventListener("abort", close, { signal: closed });
  report({ state: "connecting" });
  queueMicrotask(() => {
    if (signal?.aborted) {
      close();
    } else if (!link) {
      attempt();
    }
  });

  const once = (event) =>
    new Promise((resolve, reject) => {
      const undo = on(event, (value) => {
        undo();
        undo_end();
        resolve(value);
      });
      const end = () => {
        if (closed.aborted) {
          reject(new Error(status.reason));
        }
      };
      const undo_end = on("status", end);
      end();
    });

  async function* loop() {
    const queue = [];
    let dropped = 0;
    const undo = on("message", (data, told) => {
      if (queue.push({ data, ...told }) > LOOP_BOUND) {
        queue.shift();
        dropped++;
      }
    });
    try {
      // After close() comes nothing.
      while (!closed.aborted || (status.code && queue[0])) {
        if (queue[0]) {
          const next = { ...queue.shift(), dropped };
          dropped = 0;
          yield next;
        } else {
          await once("message").catch(() => {});
        }
      }
    } finally {
      undo();
    }
  }

  return {
    on,
    once,
    close,
    [Symbol.asyncIterator]: loop,

    get status() {
      return status;
    },

    send: (data) => !!link?.send?.(data),

    reconnect: () => {
      attempt();
    },
  };
}
