/*
 * A client of the package centrifuge, driven by lines of JSON on standard input. It says what happens
 * on standard output, in lines of JSON too. The options are one line of JSON, the only argument:
 * package, transport, endpoint, emulation, protobuf, cookie, tokens.
 */
"use strict";

const readline = require("readline");
const WebSocket = require("ws");
const { EventSource } = require("eventsource");

const options = JSON.parse(process.argv[2]);
const waiting = {}; // what takes the next token, by the channel's name ("": the connection's)

function say(event, values) {
  process.stdout.write(JSON.stringify({ event, ...values }) + "\n");
}

// A page's browser adds the cookie by itself.
function fetchWithCookie(input, init = {}) {
  return fetch(input, { ...init, headers: { ...init.headers, Cookie: options.cookie } });
}

class WebSocketWithCookie extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, { headers: { Cookie: options.cookie } });
  }
}

class EventSourceWithCookie extends EventSource {
  constructor(url, init) {
    super(url, { ...init, fetch: fetchWithCookie });
  }
}

function encode(data) {
  return options.protobuf ? new TextEncoder().encode(JSON.stringify(data)) : data;
}

function decode(data) {
  if (!options.protobuf || !data || !data.length) {
    return data;
  }
  const text = new TextDecoder().decode(data);
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

// Of protobuf's, older versions make objects.
function number(value) {
  return Number(String(value || 0));
}

function described(info) {
  return info && { user: info.user, client: info.client, chan: decode(info.chanInfo) };
}

function publication(ctx) {
  const { data, offset, info, tags } = ctx;
  return { data: decode(data), offset: number(offset), info: described(info), tags };
}

function position(ctx) {
  const { recovered, wasRecovering, recoverable, streamPosition } = ctx;
  const position = streamPosition && {
    offset: number(streamPosition.offset),
    epoch: streamPosition.epoch,
  };
  return { recovered, wasRecovering, recoverable, position };
}

function ask(channel) {
  say("token", { channel });
  return new Promise((resolve) => (waiting[channel] = resolve));
}

const library = options.protobuf
  ? require(options.package + "/build/protobuf")
  : require(options.package);
const Client = library.Centrifuge || library.default;
const client = new Client([{ transport: options.transport, endpoint: options.endpoint }], {
  protocol: options.protobuf ? "protobuf" : "json", // only 4.x reads it
  websocket: WebSocketWithCookie,
  fetch: fetchWithCookie,
  eventsource: EventSourceWithCookie,
  emulationEndpoint: options.emulation,
  minReconnectDelay: 20,
  maxReconnectDelay: 100,
  ...(options.tokens ? { getToken: () => ask("") } : {}),
});

client.on("connecting", (ctx) => say("connecting", { code: ctx.code }));
client.on("connected", (ctx) => say("connected", { client: ctx.client, transport: ctx.transport }));
client.on("disconnected", (ctx) => say("disconnected", { code: ctx.code }));
client.on("error", (ctx) => say("error", { code: ctx.error.code, text: ctx.error.message }));
client.on("subscribed", (ctx) => say("subscribed", { channel: ctx.channel, ...position(ctx) }));
client.on("unsubscribed", (ctx) => say("unsubscribed", { channel: ctx.channel }));
client.on("publication", (ctx) => say("publication", { channel: ctx.channel, ...publication(ctx) }));
client.on("join", (ctx) => say("join", { channel: ctx.channel, info: described(ctx.info) }));
client.on("leave", (ctx) => say("leave", { channel: ctx.channel, info: described(ctx.info) }));

function subscribe({ channel, tokens }) {
  let subscription = client.getSubscription(channel);
  if (!subscription) {
    subscription = client.newSubscription(channel, {
      joinLeave: true,
      minResubscribeDelay: 20,
      maxResubscribeDelay: 100,
      ...(tokens ? { getToken: () => ask(channel) } : {}),
    });
    subscription.on("subscribing", (ctx) => say("subscribing", { channel, code: ctx.code }));
    subscription.on("subscribed", (ctx) => say("subscribed", { channel, ...position(ctx) }));
    subscription.on("unsubscribed", (ctx) => say("unsubscribed", { channel, code: ctx.code }));
    subscription.on("publication", (ctx) => say("publication", { channel, ...publication(ctx) }));
    subscription.on("join", (ctx) => say("join", { channel, info: described(ctx.info) }));
    subscription.on("leave", (ctx) => say("leave", { channel, info: described(ctx.info) }));
    subscription.on("error", (ctx) => say("error", { channel, code: ctx.error.code }));
  }
  subscription.subscribe();
}

const commands = {
  connect: () => client.connect(),
  disconnect: () => client.disconnect(),
  subscribe,
  unsubscribe: ({ channel }) => client.getSubscription(channel).unsubscribe(),
  token: ({ channel, token }) => waiting[channel](token),
  publish: ({ channel, data }) => client.publish(channel, encode(data)).then(() => ({})),
  history: ({ channel, limit, since, reverse }) =>
    client.history(channel, { limit, since, reverse }).then((found) => ({
      publications: found.publications.map(publication),
      offset: number(found.offset),
      epoch: found.epoch,
    })),
  presence: ({ channel }) =>
    client.presence(channel).then((found) => ({
      clients: Object.fromEntries(
        Object.entries(found.clients).map(([id, info]) => [id, described(info)])
      ),
    })),
  presence_stats: ({ channel }) =>
    client.presenceStats(channel).then((found) => ({
      clients: number(found.numClients),
      users: number(found.numUsers),
    })),
};

const lines = readline.createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const command = JSON.parse(line);
  const done = commands[command.do](command);
  if (command.id) {
    done.then(
      (answer) => say("answer", { id: command.id, ...answer }),
      (error) => say("answer", { id: command.id, error: error.code })
    );
  }
});
lines.on("close", () => process.exit(0));
