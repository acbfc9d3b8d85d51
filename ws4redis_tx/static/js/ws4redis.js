/*
 * WS4Redis: a websocket that reconnects and resumes by itself. No dependencies, no build step.
 *
 *   const ws4redis = WS4Redis({
 *     uri: "wss://example.com/ws/foobar?subscribe-broadcast",
 *     connecting() {},                // a connection attempt starts
 *     connected() {},                 // the connection is open, and subscribed
 *     disconnected(event, retrying) {},  // an open connection ended, or an attempt failed
 *     receive_message(data, {position, replayed}) {},  // a string, or an ArrayBuffer for a binary
 *                                     // message; replayed: published before the connection opened
 *     resumed({recovered, gap}) {},   // after a reconnect: whether nothing was missed, and the
 *                                     // audiences on which something may be missing
 *     storage: sessionStorage,        // keeps the position across page loads
 *     heartbeat_msg: "--heartbeat--", // the server's WS4REDIS_HEARTBEAT, or null
 *   });
 *   ws4redis.send_message("hello");   // throws unless is_connected()
 *   ws4redis.close();                 // for good: no reconnect
 *
 * Only `uri` is required; `new WS4Redis(...)` does the same. is_closed() is true while it waits for
 * the next attempt. `retrying` is false when no further attempt follows. When it first connects, the
 * server sends the last persisted message; after a reconnect it sends what was missed, as far as it
 * is kept (WS4REDIS_HISTORY). The console tells of mistakes: an unknown option; a page on another
 * host that cannot connect; a server that never sends heartbeat_msg.
 */
(function (root) {
  "use strict";

  const BACKOFF_START = 1000; // milliseconds, as all below
  const BACKOFF_CAP = 30000;
  const STABLE_AFTER = 5000;
  const HEARTBEAT_EVERY = 5000;
  const HEARTBEATS_UNANSWERED = 3;
  const REVOKED = 1008;
  const RESUME = "ws4redis.resume";
  const LINE_FEED = 10;
  const OPTIONS = [
    "uri", "connecting", "connected", "disconnected", "receive_message", "resumed",
    "heartbeat_msg", "storage",
  ];

  function WS4Redis(options) {
    if (!new.target) {
      return new WS4Redis(options);
    }
    if (!options || typeof options.uri !== "string" || options.uri === "") {
      throw new Error(
        "WS4Redis needs the option `uri`, for example " +
          'WS4Redis({uri: "ws://" + location.host + "/ws/foobar?subscribe-broadcast"}).'
      );
    }

    if (!/^((wss?|https?):\/\/|\/)/i.test(options.uri)) {
      throw new Error(
        "WS4Redis: the uri " + JSON.stringify(options.uri) + " names no host. Is the template's " +
          "variable empty? WEBSOCKET_URI needs ws4redis_tx.context_processors.default."
      );
    }

    let socket = null;
    let stopped = false; // no further attempt follows
    let failures = 0; // attempts since the last connection that lasted
    let retry_timer = null; // null: no attempt is scheduled
    let on_probation = false; // the last connection was revoked: one attempt is left
    let heartbeat_heard = false; // from the server, on any connection
    const storage_key = "ws4redis:" + options.uri.replace(/[?&]since=[^&]*/, "");
    let position = null; // where to resume from
    try {
      position = options.storage ? options.storage.getItem(storage_key) : null;
    } catch {
      // The browser may forbid it.
    }

    function keep(place) {
      position = place;
      try {
        options.storage && options.storage.setItem(storage_key, place);
      } catch {
        // It may be full, or forbidden.
      }
    }

    function resuming_uri() {
      const separator = options.uri.includes("?") ? "&" : "?";
      return position === null
        ? options.uri
        : options.uri + separator + "since=" + encodeURIComponent(position);
    }

    const warned = new Set();

    function warn_once(subject, text) {
      if (!warned.has(subject) && root.console) {
        root.console.warn("WS4Redis: " + text);
      }
      warned.add(subject);
    }

    function warn_of_other_host() {
      const page = root.location && root.location.hostname; // empty in a file, missing in tests
      const host = page && new root.URL(options.uri, root.location.href).hostname;
      if (page !== host) {
        warn_once(
          "host",
          "the page is on " + page + " and the websocket on " + host + ". The server must allow " +
            "the page's origin (WS4REDIS_ALLOWED_ORIGINS), and the browser sends a cookie of one " +
            "host to no other, so that nobody is logged in there. Use one host for both, or a ticket."
        );
      }
    }

    function notify(callback, ...args) {
      if (typeof options[callback] === "function") {
        options[callback](...args);
      }
    }

    function connect() {
      // A server of the first edition takes the first of these, and sends messages as they are.
      const current = new root.WebSocket(resuming_uri(), ["ws4redis", RESUME]);
      let opened = false;
      let unanswered = 0;
      let heartbeats = 0;
      let stable_timer = null;
      let heartbeat_timer = null;

      retry_timer = null;
      socket = current;
      current.binaryType = "arraybuffer";

      function send_heartbeat() {
        heartbeats += 1;
        if (heartbeats > HEARTBEATS_UNANSWERED && !heartbeat_heard) {
          warn_once(
            "heartbeat",
            "the server never sends the heartbeat_msg " + JSON.stringify(options.heartbeat_msg) +
              ", so it takes it for a message. Set WS4REDIS_HEARTBEAT to the same text, or leave " +
              "heartbeat_msg out."
          );
        }
        if (unanswered >= HEARTBEATS_UNANSWERED) {
          // Over a dead network, close() alone would wait a long time for the server's answer.
          current.close();
          ended({ type: "close", code: 1006, reason: "heartbeat unanswered", wasClean: false });
        } else if (current.readyState === root.WebSocket.OPEN) {
          unanswered += 1;
          current.send(options.heartbeat_msg);
        }
      }

      function ended(event) {
        current.onopen = current.onmessage = current.onclose = null; // handle each end only once
        clearTimeout(stable_timer);
        clearInterval(heartbeat_timer);
        if (on_probation && !opened) {
          stop();
        }
        if (!opened) {
          warn_of_other_host();
        }
        on_probation = event.code === REVOKED;
        if (!stopped) {
          retry_later();
        }
        notify("disconnected", event, !stopped); // last, so that the callback may call close()
      }

      current.onopen = function () {
        opened = true;
        on_probation = false;
        // Do not hammer a server that accepts and then drops us: reset the backoff only if the
        // connection lasts.
        stable_timer = setTimeout(function () {
          failures = 0;
        }, STABLE_AFTER);
        if (options.heartbeat_msg) {
          heartbeat_timer = setInterval(send_heartbeat, HEARTBEAT_EVERY);
        }
        notify("connected");
      };

      current.onmessage = function (event) {
        if (stopped) {
          return; // after close() comes nothing
        }
        unanswered = 0; // any message proves that the server is alive
        if (options.heartbeat_msg && event.data === options.heartbeat_msg) {
          heartbeat_heard = true;
        } else if (current.protocol === RESUME) {
          heartbeat_heard = true; // marks take the place of heartbeats
          take(event.data);
        } else {
          position = null; // this server knows none, and the next one must not go back to it
          notify("receive_message", event.data);
        }
      };

      current.onclose = ended; // every error is followed by a close event, so onerror is not needed

      notify("connecting");
    }

    // A mark, a status, or a message behind its position. The position goes first: the callback may
    // throw, or close the connection.
    function take(data) {
      let head = data;
      let end;
      if (typeof data === "string") {
        end = data.indexOf("\n");
        head = end < 0 ? data : data.slice(0, end);
      } else {
        const bytes = new Uint8Array(data);
        end = bytes.indexOf(LINE_FEED);
        head = String.fromCharCode(...bytes.subarray(0, end));
      }
      if (head[0] === "{") {
        const status = JSON.parse(head);
        keep(status.position);
        if (status.recovered !== null) {
          notify("resumed", { recovered: status.recovered, gap: status.gap });
        }
        return;
      }
      const [place, flag] = head.split(",");
      keep(place);
      if (end >= 0) {
        notify("receive_message", data.slice(end + 1), { position: place, replayed: flag === "r" });
      }
    }

    function retry_later() {
      // Full jitter: after a server restarts, its clients reconnect spread out, not all at once.
      const ceiling = Math.min(BACKOFF_CAP, BACKOFF_START * Math.pow(2, failures));
      failures += 1;
      retry_timer = setTimeout(connect, Math.random() * ceiling);
    }

    function came_online() {
      if (retry_timer !== null) {
        clearTimeout(retry_timer);
        failures = 0;
        connect();
      }
    }

    function stop() {
      stopped = true;
      clearTimeout(retry_timer);
      retry_timer = null;
      root.removeEventListener("online", came_online);
    }

    this.send_message = (message) => {
      if (!this.is_connected()) {
        throw new Error(
          "WS4Redis is not connected, so the message was not sent. Wait for the connected() " +
            "callback, or check is_connected() first."
        );
      }
      socket.send(message);
    };

    this.close = () => {
      stop();
      socket.close();
    };

    // The WebSocket's readyState: 0 connecting, 1 open, 2 closing, 3 closed.
    this.get_state = () => socket.readyState;
    this.is_connecting = () => socket.readyState === root.WebSocket.CONNECTING;
    this.is_connected = () => socket.readyState === root.WebSocket.OPEN;
    this.is_closing = () => socket.readyState === root.WebSocket.CLOSING;
    this.is_closed = () => socket.readyState === root.WebSocket.CLOSED;

    for (const name of Object.keys(options)) {
      if (!OPTIONS.includes(name)) {
        warn_once(
          "option " + name,
          "there is no option " + JSON.stringify(name) + ", only " + OPTIONS.join(", ") + "."
        );
      }
    }
    connect();
    if (!stopped) {
      root.addEventListener("online", came_online);
    }
  }

  root.WS4Redis = WS4Redis;
})(self); // window, or the global of a worker
