import { connect } from "/ws4redis.mjs";

self.connect = connect;
self.messages = [];
self.statuses = [];
self.shown = []; // for each time that the page was shown, whether it was kept for "back"
addEventListener("pageshow", ({ persisted }) => shown.push(persisted));
self.feed = connect("/ws/news?subscribe-broadcast");
feed.on("message", (data) => messages.push(data));
feed.on("status", (status) => statuses.push(status));
