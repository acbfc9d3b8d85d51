// ws with ioredis: ws_server.js PORT REDIS_PORT

const Redis = require("ioredis");
const { WebSocket, WebSocketServer } = require("ws");

const [port, redisPort] = process.argv.slice(2).map(Number);

const server = new WebSocketServer({
  host: "127.0.0.1",
  port,
  path: "/ws/load",
  backlog: 2048,
  perMessageDeflate: false,
});
server.on("connection", (websocket) => websocket.on("error", console.error));

const redis = new Redis(redisPort, "127.0.0.1");
redis.on("messageBuffer", (channel, message) => {
  for (const websocket of server.clients) {
    if (websocket.readyState === WebSocket.OPEN) websocket.send(message, { binary: false });
  }
});
server.on("listening", () => {
  redis.subscribe("broadcast:load").then(() => console.log("ready"));
});
