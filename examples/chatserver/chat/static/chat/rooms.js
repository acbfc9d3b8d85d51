// The page of rooms: all conversations over one connection, by the library "centrifuge".

(function () {
  "use strict";

  const page = document.querySelector("[data-rooms]");
  const form = page.querySelector("form");
  const recipient = page.querySelector("select");
  const pill = page.querySelector("[data-status]");
  const error = page.querySelector("[data-error]");
  const here_line = page.querySelector("[data-here]");
  const typing_line = page.querySelector("[data-typing-line]");
  const { author: me, guest } = page.dataset;
  const stored = Lines.storage_of(me);
  const posted = Lines.posted_by(me, guest);

  const TYPING_TOLD = 3000; // at most once in so many milliseconds
  const TYPING_SHOWN = 5000;

  const address = `${location.origin.replace("http", "ws")}/connection/websocket`;
  const centrifuge = new Centrifuge(address);

  // One conversation: its lines, who is there, and who is typing.
  class Room {
    constructor(button, log) {
      this.button = button;
      this.log = log;
      this.channel = button.dataset.channel;
      this.unread = 0;
      this.present = new Map(); // user names, by connection
      this.changes = null; // joins and leaves, while the server is asked who is there
      this.typing = new Map(); // timers, by user name
      this.typing_told = 0;
      // The lines that this tab shows, and the point in the history that they reach.
      const { lines, offset, epoch } = JSON.parse(stored.getItem(this.channel) || "{}");
      this.lines = lines || [];
      this.offset = offset || 0;
      this.epoch = epoch;
      this.behind = false; // whether lines up to `upto` have yet to be asked for
      this.upto = 0;
      this.waiting = []; // publications that follow those
      this.lines.forEach((line) => Lines.show(log, line));
      Lines.keep_at_end(log);
      this.subscribe();
      if (button.dataset.typing) {
        this.watch_typing(button.dataset.typing);
      }
    }

    get current() {
      return current === this;
    }

    subscribe() {
      // A reload goes on where the tab had stopped.
      const since = this.epoch ? { offset: this.offset, epoch: this.epoch } : undefined;
      this.subscription = centrifuge.newSubscription(this.channel, { joinLeave: true, since });
      this.subscription
        .on("publication", (publication) => {
          if (this.behind) {
            this.waiting.push(publication);
          } else {
            this.take(publication);
          }
        })
        .on("subscribed", (context) => this.subscribed(context))
        .on("join", ({ info }) => this.change(info, true))
        .on("leave", ({ info }) => this.change(info, false))
        .on("unsubscribed", ({ code }) => {
          if (code >= 100) {
            this.button.disabled = true;
            show_error(`You are no longer in the room ${this.button.firstChild.data}.`);
          }
        })
        .subscribe();
    }

    subscribed({ wasRecovering, recovered, streamPosition }) {
      if (this.button.dataset.typing) {
        this.ask_who_is_here();
      }
      if (!streamPosition) {
        return; // there is no history
      }
      if (!(wasRecovering && recovered)) {
        // It is the first time, or the history does not hold all that was missed.
        this.take_waiting();
        if (wasRecovering) {
          this.add({ missing: true });
        }
        if (this.epoch !== streamPosition.epoch) {
          this.offset = 0;
        }
        this.upto = streamPosition.offset;
        this.behind = true;
      }
      this.epoch = streamPosition.epoch;
      if (this.behind) {
        this.catch_up().catch(console.warn); // and again when it is subscribed again
      }
    }

    async catch_up() {
      const { publications } = await this.subscription.history({ limit: 100, reverse: true });
      if (!this.behind) {
        return; // another call was faster
      }
      for (const publication of publications.reverse()) {
        if (publication.offset > this.offset && publication.offset <= this.upto) {
          this.take(publication);
        }
      }
      this.offset = Math.max(this.offset, this.upto);
      this.take_waiting();
      this.save();
    }

    take_waiting() {
      this.behind = false;
      this.waiting.splice(0).forEach((publication) => this.take(publication));
    }

    take({ data, offset }) {
      // Lines are not JSON, and so arrive as strings.
      const message = Lines.parse(typeof data === "string" ? data : JSON.stringify(data));
      this.offset = offset || this.offset;
      this.stop_typing(message.author);
      this.add({ ...message, mine: posted.is_mine(message), at: Date.now() });
    }

    add(line) {
      this.lines.push(line);
      this.lines.splice(0, this.lines.length - Lines.LINES_KEPT);
      this.save();
      Lines.show(this.log, line);
      if (!this.current) {
        this.unread += 1;
        this.show_unread();
      }
    }

    save() {
      const { lines, offset, epoch } = this;
      stored.setItem(this.channel, JSON.stringify({ lines, offset, epoch }));
    }

    show_unread() {
      const badge = this.button.querySelector(".unread");
      badge.textContent = this.unread;
      badge.hidden = this.unread === 0;
    }

    // Who is here

    change({ client, user }, joined) {
      this.changes?.push([client, user, joined]);
      if (joined) {
        this.present.set(client, user);
      } else {
        this.present.delete(client);
      }
      this.show_here();
    }

    async ask_who_is_here() {
      const changes = (this.changes = []);
      try {
        const { clients } = await this.subscription.presence();
        this.present = new Map(Object.entries(clients).map(([id, { user }]) => [id, user]));
        // The answer may be older than these.
        changes.forEach(([client, user, joined]) => this.change({ client, user }, joined));
      } catch (failure) {
        console.warn(failure); // it is asked again after the next reconnect
      }
      if (this.changes === changes) {
        this.changes = null;
      }
      this.show_here();
    }

    show_here() {
      if (!this.current) {
        return;
      }
      const users = [...this.present.values()];
      const names = [...new Set(users.filter((name) => name))].sort();
      const guests = users.length - users.filter((name) => name).length;
      if (guests > 0) {
        names.push(guests === 1 ? "one guest" : `${guests} guests`);
      }
      here_line.textContent = names.length > 0 ? `Here now: ${names.join(", ")}` : "Your messages.";
    }

    // Who is typing

    watch_typing(channel) {
      this.typing_subscription = centrifuge.newSubscription(channel);
      this.typing_subscription
        .on("publication", ({ info }) => {
          if (info && info.user !== me) {
            clearTimeout(this.typing.get(info.user));
            const stop = () => this.stop_typing(info.user);
            this.typing.set(info.user, setTimeout(stop, TYPING_SHOWN));
            this.show_typing();
          }
        })
        .subscribe();
    }

    tell_typing() {
      const now = Date.now();
      if (this.typing_subscription && me !== guest && now - this.typing_told > TYPING_TOLD) {
        this.typing_told = now;
        this.typing_subscription.publish({}).catch(console.warn);
      }
    }

    stop_typing(user) {
      clearTimeout(this.typing.get(user));
      this.typing.delete(user);
      this.show_typing();
    }

    show_typing() {
      if (this.current) {
        const names = [...this.typing.keys()].sort();
        const verb = names.length === 1 ? "is" : "are";
        typing_line.textContent = names.length > 0 ? `${names.join(", ")} ${verb} typing…` : "";
      }
    }
  }

  function show_status(status, text) {
    pill.dataset.status = status;
    pill.textContent = text;
  }

  function show_error(text) {
    error.textContent = text;
    error.hidden = text === "";
  }

  function enter(room) {
    current = room;
    for (const each of rooms) {
      each.button.setAttribute("aria-pressed", String(each.current));
      each.log.hidden = !each.current;
    }
    const asks = room.button.dataset.field !== "" && room.button.dataset.recipient === "";
    recipient.hidden = !asks;
    room.unread = 0;
    room.show_unread();
    room.show_here();
    room.show_typing();
    room.log.scrollTop = room.log.scrollHeight;
  }

  async function send(room) {
    const { url, field, recipient: fixed } = room.button.dataset;
    const fields = new FormData(form);
    const text = fields.get("message").trim();
    const to = fixed || recipient.value;
    if (text === "") {
      return;
    }
    if (field) {
      fields.set(field, to);
    }
    show_error("");
    const payload = `${me}: ${text}`;
    posted.add(payload); // now, because the connection may be faster than the response
    form.elements.message.value = "";
    room.typing_told = 0;
    const problem = await Lines.post(url, fields);
    if (problem === "") {
      if (field && !fixed && to !== me) {
        // It goes to the other user's channel only, so nothing brings it back to this page.
        posted.forget(payload);
        room.add({ author: me, text, mine: true, to, at: Date.now() });
      }
      return;
    }
    posted.forget(payload);
    show_error(problem);
    if (form.elements.message.value === "") {
      form.elements.message.value = text;
    }
  }

  const logs = [...page.querySelectorAll(".log")];
  let current = null;
  const rooms = [...page.querySelectorAll("[data-channel]")].map(
    (button, number) => new Room(button, logs[number]),
  );
  rooms.forEach((room) => room.button.addEventListener("click", () => enter(room)));
  enter(rooms[0]);

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(current);
  });
  form.elements.message.addEventListener("input", () => current.tell_typing());

  centrifuge
    .on("connecting", ({ code }) => show_status("wait", code > 0 ? "reconnecting" : "connecting"))
    .on("connected", () => show_status("live", "live"))
    .on("disconnected", () => {
      show_status("off", "offline");
      show_error("The server has ended the connection. Load the page again, or log in.");
    })
    .connect();
})();
