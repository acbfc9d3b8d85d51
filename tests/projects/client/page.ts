// A user's page, which uses all that the declarations promise. `tsc --strict` checks it.
import { connect, type Feed, type Message, type Options, type Status } from "ws4redis";

interface Order {
  id: number;
  state: "paid" | "sent";
}

const control = new AbortController();
const options: Options & { json: true } = {
  json: true,
  signal: control.signal,
  since: document.body.dataset.position,
  storage: sessionStorage,
  heartbeat_msg: null,
};
const feed: Feed<Order> = connect<Order>("/ws/orders?subscribe-user", options);

const undo: () => void = feed.on("message", (order, { position, replayed }) => {
  const id: number = order.id;
  const place: string | null = position;
  const old: boolean = replayed;
  console.log(id, place, old);
});
feed.on("status", ({ state, code, reason, retryIn, gap, transport }: Status) => {
  if (state === "waiting" && retryIn !== null) {
    console.log(`${reason} (${code}): again in ${retryIn} ms`);
  } else if (gap?.includes("user") && transport === "events") {
    location.reload();
  }
});

async function follow(): Promise<void> {
  const order: Order = await feed.once("message");
  const status: Status = await feed.once("status");
  console.log(order.state, status.state);
  for await (const { data, dropped } of feed) {
    console.log(data.state, dropped);
  }
  const next: IteratorResult<Message<Order>> = await feed[Symbol.asyncIterator]().next();
  console.log(next.done);
}

const plain = connect(async () => {
  const answer = await fetch("/ticket");
  return answer.ok ? `/ws/news?subscribe-broadcast&ticket=${await answer.text()}` : null;
});
plain.on("message", (data) => {
  const text: string = typeof data === "string" ? data : new TextDecoder().decode(data);
  console.log(text);
});
const sent: boolean = plain.send("hello") && plain.send(new Uint8Array(3));
connect(new URL("wss://example.com/ws/news?subscribe-broadcast")).reconnect();
const unknown = connect("/ws/news", { json: true });
unknown.on("message", (data: unknown) => console.log(data));
const either: Options = { json: location.hash === "#json" };
const vague: Feed<unknown> = connect("/ws/news", either);
const texts: Feed<string> = connect<string>("/ws/news", { since: null });
texts.on("message", (data) => console.log(data.length, vague.status.state));

void follow();
console.log(sent);
undo();
control.abort();
feed.close();

// Mistakes

// @ts-expect-error: there is no such option
connect("/ws/news", { heartbeat: "x" });
// @ts-expect-error: an address is missing
connect();
// @ts-expect-error: nor can it be empty
connect(undefined);
// @ts-expect-error: there is no such event
feed.on("mesage", () => undefined);
// @ts-expect-error: this is no function
feed.on("message", "show");
// @ts-expect-error: encode it first
feed.send({ id: 1 });
// @ts-expect-error: without json a message is a string or an ArrayBuffer
plain.on("message", (order: Order) => console.log(order));
// @ts-expect-error: without json it is no number
connect<number>("/ws/news");
// @ts-expect-error: unknown is not an order
unknown.on("message", (order: Order) => console.log(order));
// @ts-expect-error: the status is read-only
feed.status.state = "open";
