// socket.io with its adapter for Redis: socketio_server.js PORT REDIS_PORT
// Each websocket joins the room "load".

const { createServer } = require("http");
const { createAdapter } = require("@socket.io/redis-adapter");
const Redis = require("ioredis");
const { Server } = require("socket.io");

const [port, redisPort] = process.argv.slice(2).map(Number);

const publisher = new Redis(redisPort, "127.0.0.1");
const subscriber = publisher.duplicate();
const server = createServer();
const io = new Server(server, {
  adapter: createAdapter(publisher, subscriber),
  serveClient: false,
  transports: ["websocket"],
});
// Its documentation recommends this, to save memory.
io.engine.on("connection", (websocket) => {
  websocket.request = null;
});
io.on("connection", (socket) => socket.join("load"));

server.listen({ host: "127.0.0.1", port, backlog: 2048 }, async () => {
  await subscriber.ping(); // it is answered after the subscriptions
  console.log("ready");
});
