// What daemons hear, drawn from above: the messages of docs/protocol.md as server-sent events.

const LOG_LINES = 200, TRAIL_MS = 3000, SILENT_MS = 3000, ALARM_MS = 2000;
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

/** The name of a class for people. */
export const named = (name) => name.replaceAll("_", " ");

/** The same colour for the same class, degrees on the wheel. */
export const hue = (name) => [...name].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);

const seconds = (ns) => ns / 1e9;

class Microphone {
  constructor(name) {
    this.trails = new Map();
    const part = document.getElementById("microphone").content.cloneNode(true);
    this.element = part.querySelector("article");
    this.drawn = part.querySelector("g.now");
    this.list = part.querySelector("ul.now");
    this.health = part.querySelector(".health");
    part.querySelector("h2").textContent = name;
    document.getElementById("microphones").append(part);
  }

  frame(message) {
    const now = performance.now(), sounding = new Set();
    const dots = [], items = [];
    for (const found of message.detections) {
      const key = `${found.class} ${found.track}`;
      sounding.add(key);
      const trail = (this.trails.get(key) ?? []).filter((point) => now - point[2] < TRAIL_MS);
      trail.push([...place(found.azimuth_deg, found.elevation_deg), now]);
      this.trails.set(key, trail);
      dots.push(dot(found, trail));
      items.push(item(found, seconds(message.t_capture_ns - found.onset_ns)));
    }
    for (const key of this.trails.keys()) if (!sounding.has(key)) this.trails.delete(key);
    this.drawn.replaceChildren(...dots);
    this.list.replaceChildren(...items);
    this.behind = seconds(message.t_pub_ns - message.t_capture_ns) + message.frame_ms / 2000;
  }

  status(message) {
    const running = message.state === "running";
    const parts = [message.state, `model ${message.model_id}`];
    if (running && this.behind) parts.push(`${this.behind.toFixed(1)} s behind the sound`);
    if (message.lost_samples) parts.push(`${message.lost_samples} samples lost`);
    if (message.why) parts.push(message.why);
    this.health.textContent = parts.join(", ");
    this.health.classList.toggle("trouble", !running || message.degraded);
    if (!running) this.silence();
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

function dot(found, trail) {
  const [x, y] = trail.at(-1), colour = `hsl(${hue(found.class)} 75% 50%)`;
  const group = svg("g", { class: found.elevation_deg < 0 ? "dot below" : "dot" });
  const path = svg("polyline", { points: trail.map(([a, b]) => `${a},${b}`).join(" "), fill: "none", stroke: colour, "stroke-opacity": 0.5, "stroke-width": 2 });
  const circle = svg("circle", { cx: x, cy: y, r: 3 + 5 * found.confidence, fill: colour, stroke: colour });
  const text = svg("text", { x, y: y + (y > 0 ? -12 : 17) });
  text.textContent = named(found.class);
  group.append(path, circle, text);
  return group;
}

function item(found, lasted) {
  const line = document.createElement("li"), more = document.createElement("small");
  line.textContent = `${named(found.class)} — ${words(found.azimuth_deg, found.elevation_deg)} `;
  more.textContent = `${found.azimuth_deg.toFixed(0)}°, ${found.elevation_deg.toFixed(0)}° up, confidence ${found.confidence.toFixed(2)}, ${lasted.toFixed(1)} s`;
  line.append(more);
  return line;
}

class Page {
  constructor() {
    this.microphones = new Map();
    this.rows = new Map();
    this.state = document.getElementById("state");
    this.alert = document.getElementById("alert");
    this.choice = document.getElementById("class");
    this.heard = performance.now();
    this.alert.addEventListener("change", () => {
      if (this.alert.checked && "Notification" in window && Notification.permission === "default") Notification.requestPermission();
    });
    setInterval(() => this.tick(), 500);
  }

  listen() {
    const messages = new EventSource("messages");
    messages.onopen = () => { this.connected = true; };
    messages.onerror = () => { this.connected = false; this.tick(); };
    messages.onmessage = ({ data }) => this.take(JSON.parse(data));
    messages.addEventListener("past", ({ data }) => this.event(JSON.parse(data), false));
  }

  take(message) {
    this.heard = performance.now();
    if (message.type === "event") this.event(message, true);
    else if (message.type === "frame") this.of(message.source).frame(message);
    else if (message.type === "status") this.of(message.source).status(message);
  }

  of(source) {
    if (!this.microphones.has(source)) this.microphones.set(source, new Microphone(source));
    return this.microphones.get(source);
  }

  event(message, live) {
    const key = `${message.source} ${message.epoch} ${message.event_id}`, log = document.getElementById("log");
    let row = this.rows.get(key);
    if (!row) {
      row = document.createElement("tr");
      this.rows.set(key, row);
      log.prepend(row);
      while (log.rows.length > LOG_LINES) log.rows[log.rows.length - 1].remove();
      if (live) this.call(message);
    }
    const place = words(message.azimuth_deg, message.elevation_deg);
    const told = [
      new Date(message.onset_ns / 1e6).toLocaleTimeString(), named(message.class), place,
      `${message.azimuth_deg.toFixed(0)}°`, `${message.elevation_deg.toFixed(0)}°`, `${(message.duration_ms / 1000).toFixed(1)} s`,
    ];
    row.replaceChildren(...told.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
    if (message.phase === "offset") this.rows.delete(key);
    if (![...this.choice.options].some((option) => option.value === message.class)) {
      this.choice.add(new Option(named(message.class), message.class));
    }
  }

  call(message) {
    const text = `${named(message.class)} — ${words(message.azimuth_deg, message.elevation_deg)}`;
    document.getElementById("spoken").textContent = text;
    if (!this.alert.checked || (this.choice.value && this.choice.value !== message.class)) return;
    document.body.classList.add("alarm");
    clearTimeout(this.calm);
    this.calm = setTimeout(() => document.body.classList.remove("alarm"), ALARM_MS);
    navigator.vibrate?.([200, 100, 200]);
    if ("Notification" in window && Notification.permission === "granted") new Notification(text, { tag: message.class });
  }

  tick() {
    const silent = performance.now() - this.heard > SILENT_MS;
    this.state.textContent = !this.connected ? "seldrt view has ended, or cannot be reached"
      : silent ? "nothing heard: is the daemon running?" : "listening";
    this.state.classList.toggle("trouble", !this.connected || silent);
    if (!this.connected || silent) for (const microphone of this.microphones.values()) microphone.silence();
  }
}

if (typeof document !== "undefined") new Page().listen();
