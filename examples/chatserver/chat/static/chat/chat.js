// The chat page: shows messages from the websocket, and sends the form without leaving the page.

(function () {
  "use strict";

  const chat = document.querySelector("[data-chat]");
  const log = chat.querySelector(".log");
  const form = chat.querySelector("form");
  const pill = chat.querySelector("[data-status]");
  const error = chat.querySelector("[data-error]");
  const { author: me, guest, websocket } = chat.dataset;
  const heartbeat = JSON.parse(document.getElementById("heartbeat").textContent);

  const REPLAY_WINDOW = 1000; // milliseconds after a reconnect

  const shown = new Set(); // payloads that arrived over the websocket
  const posted = []; // payloads that this page sent and that have not come back yet
  let attempts = 0;
  let connected_at = 0;
  let connected_before = false;

  function show_status(status, text) {
    pill.dataset.status = status;
    pill.textContent = text;
  }

  function show_error(text) {
    const was_at_end = at_end();
    error.textContent = text;
    error.hidden = text === "";
    if (was_at_end) {
      log.scrollTop = log.scrollHeight; // the error takes space from the log
    }
  }

  function at_end() {
    return log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  }

  function element(tag, class_name, text) {
    const node = document.createElement(tag);
    node.className = class_name;
    node.textContent = text; // never innerHTML, because anybody may have written it
    return node;
  }

  // Returns true if this page had sent it.
  function forget_posted(payload) {
    const position = posted.indexOf(payload);
    if (position >= 0) {
      posted.splice(position, 1);
    }
    return position >= 0;
  }

  // Each name always gets the same colour.
  function hue_of(name) {
    let hash = 0;
    for (const char of name) {
      hash = (hash * 31 + char.codePointAt(0)) % 360;
    }
    return hash;
  }

  function show_message({ author, text, mine, to }) {
    const follow = mine || at_end();
    const row = element("article", author === null ? "message plain" : "message", "");
    row.classList.toggle("mine", mine);
    if (author !== null) {
      row.style.setProperty("--hue", hue_of(author));
      const avatar = element("span", "avatar", Array.from(author)[0].toUpperCase());
      avatar.setAttribute("aria-hidden", "true");
      row.append(avatar);
    }
    const bubble = element("div", "bubble", "");
    if (author !== null) {
      bubble.append(element("b", "author", to ? `${author} → ${to}` : author));
    }
    bubble.append(element("p", "text", text || "(empty message)"));
    const now = new Date();
    const time = element("time", "", now.toLocaleTimeString([], { timeStyle: "short" }));
    time.dateTime = now.toISOString();
    bubble.append(time);
    row.append(bubble);
    log.querySelector(".empty")?.remove();
    log.append(row);
    if (follow) {
      log.scrollTop = log.scrollHeight;
    }
  }

  function receive(data) {
    if (typeof data !== "string") {
      show_message({ author: null, text: `(${data.byteLength} bytes, not text)`, mine: false });
      return;
    }
    // The server replays the last persisted message at every connect. Show it only once.
    const replaying = connected_before && Date.now() - connected_at < REPLAY_WINDOW;
    if (replaying && shown.has(data)) {
      return;
    }
    shown.add(data);
    const [, author, text] = /^([^\s:]{1,150}): ([\s\S]*)$/.exec(data) || [null, null, data];
    // All guests share one name, so their own messages are recognised by `posted`.
    const from_here = forget_posted(data);
    show_message({ author, text, mine: author === me && (me !== guest || from_here) });
  }

  async function send() {
    const fields = new FormData(form);
    const text = fields.get("message").trim();
    const to = fields.get("user");
    if (text === "") {
      return;
    }
    show_error("");
    const payload = `${me}: ${text}`;
    posted.push(payload); // now, because the websocket may be faster than the response
    form.elements.message.value = "";
    let problem = "The server cannot be reached. Your message was not sent.";
    try {
      const response = await fetch(form.action, {
        method: "POST",
        body: fields,
        headers: { Accept: "application/json" },
      });
      if (response.redirected) {
        location.reload(); // the login has expired, so the page redirects to the form
        return;
      }
      const is_json = (response.headers.get("Content-Type") || "").includes("json");
      const answer = is_json ? await response.json() : {};
      problem = response.ok ? "" : answer.error || `The server refused it (${response.status}).`;
    } catch (failure) {
      console.warn(failure);
    }
    if (problem === "") {
      if (to && to !== me) {
        // It goes to the other user's channel only, so nothing brings it back to this page.
        forget_posted(payload);
        show_message({ author: me, text, mine: true, to });
      }
      return;
    }
    forget_posted(payload);
    show_error(problem);
    if (form.elements.message.value === "") {
      form.elements.message.value = text;
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });

  WS4Redis({
    uri: websocket,
    heartbeat_msg: heartbeat,
    connecting() {
      show_status("wait", attempts > 0 ? "reconnecting" : "connecting");
      attempts += 1;
    },
    connected() {
      connected_before = connected_at > 0;
      connected_at = Date.now();
      show_status("live", "live");
    },
    disconnected(_event, retrying) {
      show_status(retrying ? "wait" : "off", retrying ? "reconnecting" : "offline");
    },
    receive_message: receive,
  });
})();
