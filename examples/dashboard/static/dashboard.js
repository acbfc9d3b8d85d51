// The dashboard: shows the newest reading, and draws the last minute once in a frame.

import { connect } from "../js/ws4redis.mjs";

const SHOWN = 60; // seconds
const WIDTH = 600;
const HEIGHT = 110;

const main = document.querySelector("main");
const pill = document.querySelector("[data-status]");
const counts = document.querySelector("[data-counts]");
const pause = document.querySelector("[data-pause]");
const keys = [...document.querySelectorAll(".tile")].map((tile) => tile.dataset.key);

let readings = []; // of the last minute
let received = 0;
let passed_over = 0; // readings that the server left out because newer ones were there
let frame = null;
let reconnected = false; // and no reading since

function parts_of(key) {
  const [tile, figure] = document.querySelectorAll(`[data-key="${key}"]`);
  const part = (element, name) => element.querySelector(name);
  return {
    value: part(tile, "[data-value]"),
    range: part(tile, "[data-range]"),
    high: part(figure, "[data-high]"),
    low: part(figure, "[data-low]"),
    line: part(figure, ".line"),
    area: part(figure, ".area"),
  };
}

const parts = new Map(keys.map((key) => [key, parts_of(key)]));

function draw_one(key, now) {
  const { value, range, high, low, line, area } = parts.get(key);
  const values = readings.map((reading) => reading.values[key]);
  const least = Math.min(...values);
  const most = Math.max(...values);
  const room = (most - least) * 0.1 || 1;
  const x = (at) => (WIDTH * (1 - (now - at) / SHOWN)).toFixed(1);
  const y = (v) => (HEIGHT * (1 - (v - least + room) / (most - least + 2 * room))).toFixed(1);
  const points = readings.map(({ at }, i) => `${x(at)} ${y(values[i])}`);
  value.textContent = values.at(-1).toFixed(1);
  range.textContent = `${least.toFixed(1)} to ${most.toFixed(1)}`;
  high.textContent = most.toFixed(1);
  low.textContent = least.toFixed(1);
  line.setAttribute("d", `M${points.join("L")}`);
  area.setAttribute("d", `M${points.join("L")}V${HEIGHT}H${x(readings[0].at)}Z`);
}

function draw() {
  frame = null;
  const newest = readings.at(-1);
  if (!newest || pause.ariaPressed === "true") {
    return;
  }
  keys.forEach((key) => draw_one(key, newest.at));
  const left_out = passed_over ? `, ${passed_over} passed over to keep up` : "";
  counts.textContent = `Reading ${newest.number}: ${received} received${left_out}`;
}

function draw_soon() {
  frame ??= requestAnimationFrame(draw); // a hidden tab draws nothing, and is up to date at once
}

pause.addEventListener("click", () => {
  pause.ariaPressed = String(pause.ariaPressed !== "true");
  draw_soon();
});

const feed = connect(`/ws/${main.dataset.facility}?subscribe-broadcast`, { json: true });

feed.on("message", (reading) => {
  const before = readings.at(-1);
  if (before && reading.number <= before.number) {
    readings = []; // the program that measures has started anew
  } else if (before && !reconnected) {
    passed_over += reading.number - before.number - 1;
  }
  reconnected = false;
  received += 1;
  readings.push(reading);
  const oldest = readings.findIndex(({ at }) => at >= reading.at - SHOWN);
  readings.splice(0, oldest);
  draw_soon();
});

feed.on("status", ({ state }) => {
  reconnected ||= state !== "open"; // "open" is told again when readings were passed over
  const tones = { open: "live", connecting: "wait", waiting: "wait", closed: "off" };
  const words = { open: "live", connecting: "connecting", waiting: "reconnecting", closed: "offline" };
  pill.dataset.status = tones[state];
  pill.textContent = words[state];
});
