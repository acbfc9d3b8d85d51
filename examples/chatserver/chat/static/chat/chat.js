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

  // The tab's own storage, apart for each author, who may log out and let another one log in.
  const stored = {
    getItem(key) {
      try {
        return sessionStorage.getItem(`${me}:${key}`);
      } catch {
        return null; // the browser forbids it
      }
    },
    setItem(key, value) {
      try {
        sessionStorage.setItem(`${me}:${key}`, value);
      } catch {
        // it is forbidden, or full
      }
    },
  };

  const LINES_KEPT = 200;

  // What this tab shows, in order. A reload shows it again, and the websocket goes on after it.
  const lines = JSON.parse(stored.getItem(`chat:${websocket}`) || "[]");
  const posted = []; // payloads that this page sent and that have not come back yet
  let attempts = 0;
  let behind_gap = false; // and no live message since

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

  function add_row(row, follow) {
    log.querySelector(".empty")?.remove();
    log.append(row);
    if (follow) {
      log.scrollTop = log.scrollHeight;
    }
  }

  function show_message({ author, text, mine, to, at }) {
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
    const when = new Date(at);
    const time = element("time", "", when.toLocaleTimeString([], { timeStyle: "short" }));
    time.dateTime = when.toISOString();
    bubble.append(time);
    row.append(bubble);
    add_row(row, mine || at_end());
  }

  function show_missing() {
    add_row(element("p", "missing", "Some messages may be missing here."), at_end());
  }

  function show(line) {
    if (line.missing) {
      show_missing();
    } else {
      show_message(line);
    }
  }

  function add(line) {
    show(line);
    lines.push(line);
    lines.splice(0, lines.length - LINES_KEPT);
    stored.setItem(`chat:${websocket}`, JSON.stringify(lines));
  }

  function receive(data, { replayed } = {}) {
    const at = Date.now();
    if (typeof data !== "string") {
      add({ author: null, text: `(${data.byteLength} bytes, not text)`, mine: false, at });
      return;
    }
    // Behind a gap comes the last message that is persisted. It may be here already.
    behind_gap = behind_gap && replayed;
    if (behind_gap && lines.some((line) => line.data === data)) {
      return;
    }
    const [, author, text] = /^([^\s:]{1,150}): ([\s\S]*)$/.exec(data) || [null, null, data];
    // All guests share one name, so their own messages are recognised by `posted`.
    const from_here = forget_posted(data);
    const mine = author === me && (me !== guest || from_here);
    add({ author, text, mine, at, data });
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
        add({ author: me, text, mine: true, to, at: Date.now() });
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

  lines.forEach(show);

  WS4Redis({
    uri: websocket,
    storage: stored,
    heartbeat_msg: heartbeat,
    connecting() {
      show_status("wait", attempts > 0 ? "reconnecting" : "connecting");
      attempts += 1;
    },
    connected() {
      show_status("live", "live");
    },
    disconnected(_event, retrying) {
      show_status(retrying ? "wait" : "off", retrying ? "reconnecting" : "offline");
    },
    receive_message: receive,
    resumed({ recovered }) {
      behind_gap = !recovered;
      if (behind_gap) {
        add({ missing: true });
      }
    },
  });
})();
