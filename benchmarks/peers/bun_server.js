// Bun's own websockets (uWebSockets) and their publish, with ioredis: bun_server.js PORT REDIS_PORT

const Redis = require("ioredis");

const [port, redisPort] = process.argv.slice(2).map(Number);
const TOPIC = "load";

const server = Bun.serve({
  hostname: "127.0.0.1",
  port,
  routes: {
    "/ws/load": (request, server) =>
      server.upgrade(request) ? undefined : new Response(null, { status: 400 }),
  },
  fetch: () => new Response(null, { status: 404 }),
  websocket: {
    perMessageDeflate: false,
    open: (websocket) => websocket.subscribe(TOPIC),
    message() {},
  },
});

const redis = new Redis(redisPort, "127.0.0.1");
redis.on("message", (channel, message) => server.publish(TOPIC, message));
redis.subscribe("broadcast:load").then(() => console.log("ready"));
