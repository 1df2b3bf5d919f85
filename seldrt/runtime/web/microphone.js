// What a microphone hears, drawn from above and in words, and how it is.

import { SILENCE, tell } from "./alerts.js";
import { named } from "./names.js";

const SPOKEN_LINES = 20, TRAIL_MS = 3000;
const LATE_MS = 3000; // so much later than it could be, for so long, and what is shown is not the present
const SLOWER = 0.0005; // by which clocks may drift apart
// What a degraded daemon may be in trouble with.
const WHAT = /^(?:all channels|channels? \d+(?: and \d+)?|clips|clock|csv|device|jsonl|loss|overrun|recording|sound|speed)(?=: )/;
// Trouble with what a daemon only writes, and a clock that was set, fail no alert.
const HARMLESS = ["clips", "clock", "csv", "jsonl", "recording"];
const AROUND = ["in front", "front left", "left", "behind, left", "behind", "behind, right", "right", "front right"];

/** Where a direction lies in a circle of radius 100 around the microphone: front is up, what is overhead or below in the middle. */
export function place(azimuth, elevation) {
  const radius = 100 * (1 - Math.min(Math.abs(elevation), 90) / 90), angle = azimuth * Math.PI / 180;
  return [-radius * Math.sin(angle), -radius * Math.cos(angle)];
}

/** A direction in words. Azimuth is counter-clockwise from the front, degrees: +90 is left. */
export function words(azimuth, elevation) {
  if (Math.abs(elevation) > 65) return elevation > 0 ? "overhead" : "below";
  const around = AROUND[((Math.round(azimuth / 45) % 8) + 8) % 8];
  if (Math.abs(elevation) <= 25) return around;
  return `${around}, ${elevation > 0 ? "above" : "below"}`;
}

/** A rounded angle; none is "-0°". */
export const degrees = (angle) => `${Math.round(angle)}°`;

// By the number of a class: apart from each other, and with a contrast of 3 on the light and the dark ground.
export const COLOURS = [
  "#f00", "#05f", "#090", "#e0f", "#078", "#b80", "#97f", "#c08", "#760", "#91e", "#19d", "#75a", "#697", "#b40", "#f4a", "#a78",
];

/** What a degraded daemon is in trouble with, but for files: its `why` is "what: text; what: text". */
export function kinds(why) {
  const found = why.split("; ").flatMap((part) => part.match(WHAT) ?? []);
  return found.length ? found.filter((what) => !HARMLESS.includes(what)) : ["degraded"];
}

const seconds = (ns) => ns / 1e9;

export class Microphone {
  constructor(name) {
    this.name = name;
    this.trails = new Map();
    this.came = performance.now();
    this.quickest = Infinity; // ms from sending a message to its coming, whatever their clock says
    this.sent = -Infinity;
    this.lateSince = Infinity;
    this.article = document.getElementById("microphone").content.cloneNode(true).querySelector("article");
    const part = (which) => this.article.querySelector(which);
    this.drawn = part("g.now");
    this.list = part("ul.now");
    this.health = part(".health");
    this.figures = part(".figures");
    part("h2").textContent = name;
    document.getElementById("microphones").append(this.article);
  }

  take(message) {
    this.heard = performance.now();
    this.time(message.t_pub_ns / 1e6);
    if (message.type === "frame") this.frame(message);
    else if (message.type === "status") this.status(message);
  }

  time(sent) {
    if (sent < this.sent - LATE_MS) this.quickest = Infinity; // their clock was set back
    this.quickest = Math.min(this.quickest + SLOWER * (this.heard - this.came), this.heard - sent);
    [this.sent, this.came] = [sent, this.heard];
    const most = this.late ? LATE_MS / 2 : LATE_MS;
    this.lateSince = this.heard - sent - this.quickest < most ? Infinity : Math.min(this.lateSince, this.heard);
  }

  /** Whether what comes from it comes late. */
  get late() {
    return this.came - this.lateSince > LATE_MS;
  }

  frame(message) {
    const now = performance.now(), trails = new Map(), dots = [], items = [];
    for (const found of message.detections) {
      const key = `${found.class} ${found.track}`;
      const trail = (this.trails.get(key) ?? []).filter((point) => now - point[2] < TRAIL_MS);
      trail.push([...place(found.azimuth_deg, found.elevation_deg), now]);
      trails.set(key, trail);
      dots.push(dot(found, trail));
      items.push(item(found, seconds(message.t_capture_ns - found.onset_ns)));
    }
    this.trails = trails;
    this.drawn.replaceChildren(...dots);
    this.list.replaceChildren(...items);
    this.behind = seconds(message.t_pub_ns - message.t_capture_ns) + message.frame_ms / 2000;
  }

  status(message) {
    const running = message.state === "running";
    const figures = [`model ${message.model_id}`];
    if (running && this.behind > 0) figures.push(`${this.behind.toFixed(1)} s behind the sound`);
    if (message.lost_samples) figures.push(`${message.lost_samples} samples lost`);
    this.figures.textContent = figures.join(", ");
    const state = running && message.degraded ? "degraded" : message.state;
    this.ended = message.state === "ended"; // as somebody wished: no trouble
    const wrong = running ? message.degraded : !this.ended, what = running ? kinds(message.why) : [state];
    this.say([state, message.why].filter(Boolean).join(": "), wrong, what);
    if (!running) this.silence();
  }

  /** Nothing came for a while: what it said last does not hold any more. */
  forsaken() {
    this.say("nothing comes from this microphone: is the daemon running?", true, [SILENCE]);
    this.silence();
  }

  /** What is said of it, and whether that is trouble; of which kinds, none if it fails no alert. Other kinds are read out:
   * the words may be others each second. */
  say(text, wrong, what) {
    const state = wrong ? what.join() : "";
    if (state !== (this.said ?? "")) speak(`${this.name}: ${text}`);
    this.said = state;
    this.trouble = wrong && what.length > 0 && { text: `${this.name}: ${text}`, kinds: what };
    tell(this.health, text, wrong);
  }

  silence() {
    this.trails.clear();
    this.drawn.replaceChildren();
    this.list.replaceChildren();
  }
}

function svg(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/** Reads something out, after what is being read. */
export function speak(text) {
  const spoken = document.getElementById("spoken");
  spoken.append(Object.assign(document.createElement("p"), { textContent: text }));
  if (spoken.children.length > SPOKEN_LINES) spoken.firstChild.remove();
}

function dot(found, trail) {
  const [x, y] = trail.at(-1), colour = COLOURS[found.class_id % COLOURS.length];
  const room = 123 - Math.min(2.7 * named(found.class).length, 120); // for the middle of its name, so that no end is cut off
  const group = svg("g", { class: found.elevation_deg < 0 ? "dot below" : "dot" });
  const path = svg("polyline", { points: trail.map(([a, b]) => `${a},${b}`).join(" "), fill: "none", stroke: colour, "stroke-opacity": 0.5, "stroke-width": 2 });
  const circle = svg("circle", { cx: x, cy: y, r: 3 + 5 * found.confidence, fill: colour, stroke: colour });
  const text = svg("text", { x: Math.max(-room, Math.min(room, x)), y: y + (y > 0 ? -12 : 17) });
  text.textContent = named(found.class);
  group.append(path, circle, text);
  return group;
}

function item(found, lasted) {
  const line = document.createElement("li"), more = document.createElement("small");
  line.textContent = `${named(found.class)} — ${words(found.azimuth_deg, found.elevation_deg)} `;
  more.textContent = `azimuth ${degrees(found.azimuth_deg)}, elevation ${degrees(found.elevation_deg)}, `
    + `confidence ${found.confidence.toFixed(2)}, for ${lasted.toFixed(1)} s`;
  line.append(more);
  return line;
}
