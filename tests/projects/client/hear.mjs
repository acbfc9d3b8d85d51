// A user's program in Node: hears one message, sends one, comes back, and leaves.
//   node hear.mjs URL
import { connect } from "ws4redis";

const feed = connect(process.argv[2]);
feed.on("status", ({ state, transport, gap }) => console.log(state, transport, JSON.stringify(gap)));
const [opened, heard] = [feed.once("status"), feed.once("message")];
await opened; // connecting
await feed.once("status");
console.log("sent", feed.send("hello"));
console.log("heard", await heard);
feed.reconnect();
for await (const { data, replayed } of feed) {
  console.log("heard", data, replayed);
  feed.close();
}
