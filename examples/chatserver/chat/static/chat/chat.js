// The chat page: shows messages from the websocket, and sends the form without leaving the page.

import { connect } from "../js/ws4redis.mjs";

const chat = document.querySelector("[data-chat]");
const log = chat.querySelector(".log");
const form = chat.querySelector("form");
const pill = chat.querySelector("[data-status]");
const error = chat.querySelector("[data-error]");
const { author: me, guest, websocket } = chat.dataset;
const stored = Lines.storage_of(me);
const posted = Lines.posted_by(me, guest);

Lines.keep_at_end(log);

// What this tab shows, in order. A reload shows it again, and the websocket goes on after it.
const lines = JSON.parse(stored.getItem(`chat:${websocket}`) || "[]");
let behind_gap = false; // and no live message since
let ever_open = false;

function show_status(status, text) {
  pill.dataset.status = status;
  pill.textContent = text;
}

function show_error(text) {
  error.textContent = text;
  error.hidden = text === "";
}

function add(line) {
  Lines.show(log, line);
  lines.push(line);
  lines.splice(0, lines.length - Lines.LINES_KEPT);
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
  const message = Lines.parse(data);
  add({ ...message, mine: posted.is_mine(message), at });
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
  posted.add(payload); // now, because the websocket may be faster than the response
  form.elements.message.value = "";
  const problem = await Lines.post(form.action, fields);
  if (problem === "") {
    if (to && to !== me) {
      // It goes to the other user's channel only, so nothing brings it back to this page.
      posted.forget(payload);
      add({ author: me, text, mine: true, to, at: Date.now() });
    }
    return;
  }
  posted.forget(payload);
  show_error(problem);
  if (form.elements.message.value === "") {
    form.elements.message.value = text;
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});

lines.forEach((line) => Lines.show(log, line));

// Logged out, or no longer a member: told while connected, and in answer to an attempt
const REVOKED = [1008, 401, 403];
const feed = connect(websocket, { storage: stored });

feed.on("message", receive);
feed.on("status", ({ state, code, gap }) => {
  if (REVOKED.includes(code)) {
    feed.close();
    show_status("off", "logged out");
    show_error("You have been logged out, or have lost a right. Load the page again.");
  } else if (state === "open") {
    show_status("live", "live");
    behind_gap = Boolean(gap && gap.length);
    if (behind_gap) {
      add({ missing: true });
    }
  } else if (state === "closed") {
    show_status("off", "offline");
  } else {
    show_status("wait", ever_open ? "reconnecting" : "connecting");
  }
  ever_open ||= state === "open";
});
