// node stream.mjs NODE_MODULES LIBRARY PORT TRANSPORT FORMAT [CHANNEL]: the unmodified JavaScript
// library over HTTP. Subscribes to a channel and publishes there; prints what comes back. If CHANNEL is
// given, it recovers all that is kept there.
import { createRequire } from "node:module";

const [, , modules, library, port, transport, format, channel] = process.argv;
const require = createRequire(`${modules}/`);
const { Centrifuge } = require(format === "protobuf" ? `${library}/build/protobuf` : library);
const { EventSource } = require("eventsource");
const here = `http://127.0.0.1:${port}`;

const client = new Centrifuge([{ transport, endpoint: `${here}/connection/${transport}` }], {
  emulationEndpoint: `${here}/emulation`,
  eventsource: EventSource,
});
const written = (data) =>
  format === "protobuf" ? new TextEncoder().encode(JSON.stringify(data)) : data;
const read = (data) =>
  format === "protobuf" ? JSON.parse(new TextDecoder().decode(data)) : data;

client.on("connecting", ({ code }) => console.log(`connecting ${code}`));
client.on("connected", ({ transport }) => console.log(`connected ${transport}`));
client.on("error", () => {});
const subscription = client.newSubscription(
  channel || "broadcast:f",
  channel ? { since: { offset: 0, epoch: "" } } : {}
);
subscription.on("publication", ({ data }) => {
  const value = read(data);
  // Of a long text, its length and its different characters.
  const told = value.length > 1000 ? [value.length, ...new Set(value)] : value;
  console.log(`heard ${JSON.stringify(told)}`);
});
subscription.on("subscribed", () => {
  console.log("subscribed");
  subscription.publish(written("its own")).catch(({ code }) => console.log(`refused ${code}`));
});
subscription.subscribe();
client.connect();
