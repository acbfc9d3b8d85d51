/*
 * Listens with one implementation of EventSource, and posts what it hears to /said, in order.
 *
 * In a page: hear(EventSource, location.origin, "/ws/…"). In Node: hear.js PACKAGE ORIGIN TARGET.
 */
"use strict";

function reporter(origin) {
  let waiting = [];
  let posting = false;

  async function post() {
    posting = true;
    while (waiting.length) {
      const body = JSON.stringify(waiting);
      waiting = [];
      await fetch(origin + "/said", { method: "POST", body });
    }
    posting = false;
  }

  return function say(kind, data, id) {
    waiting.push([kind, data, id]);
    posting || post();
  };
}

function hear(EventSource, origin, target) {
  const say = reporter(origin);
  const source = new EventSource(new URL(target, origin).href);
  // "open" and "error" are also what the library itself says: then without data.
  for (const type of ["open", "live", "gap", "binary", "message"]) {
    source.addEventListener(type, (event) => {
      event.data === undefined || say(type, event.data, event.lastEventId);
    });
  }
  source.onerror = () => say("error", String(source.readyState), "");
  return say;
}

/* The interface of an EventSource, as far as hear() uses it. */
function by_fetch(fetchEventSource) {
  return class {
    constructor(url) {
      this.listeners = {};
      this.readyState = 0;
      fetchEventSource(url, {
        openWhenHidden: true,
        onmessage: (message) => {
          const event = { data: message.data, lastEventId: message.id };
          // It tells of blocks without data too: comments, and the time until the next attempt.
          if (message.event || message.id) {
            this.listeners[message.event || "message"](event);
          }
        },
        onclose() {
          throw new Error("the stream has ended"); // else it is not opened again
        },
        onerror: () => this.onerror(),
      });
    }

    addEventListener(type, listener) {
      this.listeners[type] = listener;
    }
  };
}

const IMPLEMENTATIONS = {
  "eventsource": () => require("eventsource").EventSource,
  "launchdarkly-eventsource": () => require("launchdarkly-eventsource").EventSource,
  "event-source-polyfill": () => require("event-source-polyfill").EventSourcePolyfill,
  "@microsoft/fetch-event-source"() {
    globalThis.window = globalThis;
    globalThis.document = { addEventListener() {}, removeEventListener() {} };
    return by_fetch(require("@microsoft/fetch-event-source").fetchEventSource);
  },
};

if (typeof require === "function") {
  const [name, origin, target] = process.argv.slice(2);
  hear(IMPLEMENTATIONS[name](), origin, target);
}
