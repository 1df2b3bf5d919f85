// What daemons hear, drawn from above: the messages of docs/protocol.md as server-sent events.

const LOG_LINES = 200, SPOKEN_LINES = 20, TRAIL_MS = 3000, SILENT_MS = 3000, ALARM_MS = 2000;
const LATE_MS = 15000; // an onset that is older is no reason for an alert
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

/** Whether a class is among those that somebody wrote down, with commas between them; nothing written means all. */
export function isWanted(text, name) {
  const names = text.split(",").map((part) => part.trim().toLowerCase().replaceAll(" ", "_")).filter(Boolean);
  return !names.length || names.includes(name.toLowerCase());
}

/** The same colour for the same class, degrees on the wheel. */
export const hue = (name) => [...name].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);

const seconds = (ns) => ns / 1e9;

class Microphone {
  constructor(name) {
    this.trails = new Map();
    this.heard = performance.now();
    const part = document.getElementById("microphone").content.cloneNode(true);
    this.drawn = part.querySelector("g.now");
    this.list = part.querySelector("ul.now");
    this.health = part.querySelector(".health");
    part.querySelector("h2").textContent = name;
    document.getElementById("microphones").append(part);
  }

  take(message) {
    this.heard = performance.now();
    if (message.type === "frame") this.frame(message);
    else if (message.type === "status") this.status(message);
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
    const parts = [message.state, `model ${message.model_id}`];
    if (running && this.behind > 0) parts.push(`${this.behind.toFixed(1)} s behind the sound`);
    if (message.lost_samples) parts.push(`${message.lost_samples} samples lost`);
    if (message.why) parts.push(message.why);
    this.say(parts.join(", "), !running || message.degraded);
    if (!running) this.silence();
  }

  /** Nothing came for a while: what it said last does not hold any more. */
  forsaken() {
    this.say("nothing comes from this microphone: is the daemon running?", true);
    this.silence();
  }

  say(text, trouble) {
    if (this.health.textContent !== text) this.health.textContent = text;
    this.health.classList.toggle("trouble", trouble);
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
  more.textContent = `azimuth ${found.azimuth_deg.toFixed(0)}°, elevation ${found.elevation_deg.toFixed(0)}°, for ${lasted.toFixed(1)} s`;
  line.append(more);
  return line;
}

class Page {
  constructor() {
    this.microphones = new Map();
    this.rows = new Map(); // by event, for as long as the row stands in the table
    this.log = document.getElementById("log");
    this.state = document.getElementById("state");
    this.spoken = document.getElementById("spoken");
    this.alert = document.getElementById("alert");
    this.wanted = document.getElementById("wanted");
    this.heard = performance.now();
    this.player = this.playing = null; // what sounds, and the button that began it
    this.wanted.value = localStorage.getItem("wanted") ?? "";
    this.alert.checked = localStorage.getItem("alert") === "yes";
    this.wanted.addEventListener("change", () => localStorage.setItem("wanted", this.wanted.value));
    this.alert.addEventListener("change", () => {
      localStorage.setItem("alert", this.alert.checked ? "yes" : "no");
      if (this.alert.checked && "Notification" in window && Notification.permission === "default") Notification.requestPermission();
    });
    setInterval(() => this.tick(), 500);
  }

  listen() {
    const messages = new EventSource("messages");
    messages.onopen = () => {
      this.connected = true;
      this.heard = performance.now();
      document.body.classList.remove("clips");
    };
    messages.onerror = () => { this.connected = false; this.tick(); };
    messages.onmessage = ({ data }) => this.take(JSON.parse(data));
    messages.addEventListener("clips", () => document.body.classList.add("clips"));
    messages.addEventListener("past", ({ data }) => this.event(JSON.parse(data)));
  }

  take(message) {
    this.heard = performance.now();
    if (!this.microphones.has(message.source)) this.microphones.set(message.source, new Microphone(message.source));
    this.microphones.get(message.source).take(message);
    if (message.type !== "event") return;
    this.event(message);
    if (message.phase === "onset" && Math.abs(Date.now() - message.onset_ns / 1e6) < LATE_MS) this.call(message);
  }

  event(message) {
    const key = `${message.source} ${message.epoch} ${message.event_id}`;
    let row = this.rows.get(key);
    if (!row) {
      row = document.createElement("tr");
      this.rows.set(key, row);
      this.log.prepend(row);
      if (this.rows.size > LOG_LINES) {
        const [oldest, last] = this.rows.entries().next().value;
        this.rows.delete(oldest);
        last.remove();
      }
    }
    if (row.over) return; // told again after a connection broke: what has the focus stays
    row.over = message.phase === "offset";
    const told = [
      new Date(message.onset_ns / 1e6).toLocaleString(), message.source, named(message.class),
      words(message.azimuth_deg, message.elevation_deg), `${message.azimuth_deg.toFixed(0)}°`,
      `${message.elevation_deg.toFixed(0)}°`, `${(message.duration_ms / 1000).toFixed(1)} s`,
    ];
    row.replaceChildren(...told.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
    if (row.over) row.append(this.listening(message));
  }

  /** A cell with a button that plays the sound of an event and stops it, where clips are kept (else the style hides it). */
  listening(message) {
    const cell = document.createElement("td"), button = document.createElement("button");
    const what = `${named(message.class)}, ${new Date(message.onset_ns / 1e6).toLocaleTimeString()}`;
    const says = (text, label) => { button.textContent = text; button.setAttribute("aria-label", `${label} ${what}`); };
    cell.className = "clip";
    says("▶", "listen to");
    button.addEventListener("click", async () => {
      if (await this.play(message, button)) says("▶", "listen to");
      else says("no clip", "no clip of");
    });
    cell.append(button);
    return cell;
  }

  /** Plays the clip of an event, or stops it when the same button is pressed again; false if there is none. */
  async play(message, button) {
    const stopped = this.playing === button && this.player && !this.player.paused && !this.player.ended;
    this.playing = button;
    this.player?.pause();
    if (stopped) return true;
    const asked = new URLSearchParams({ class: message.class, source: message.source, onset_ms: Math.floor(message.onset_ns / 1e6) });
    try {
      const answer = await fetch(`clip?${asked}`);
      if (!answer.ok) return false;
      const sound = await answer.blob();
      if (this.playing !== button) return true; // another one was pressed meanwhile
      this.player ??= new Audio();
      URL.revokeObjectURL(this.player.src);
      this.player.src = URL.createObjectURL(sound);
      await this.player.play();
      return true;
    } catch (error) {
      return error.name === "AbortError"; // stopped before it began
    }
  }

  call(message) {
    const text = `${named(message.class)} — ${words(message.azimuth_deg, message.elevation_deg)}`;
    this.spoken.append(Object.assign(document.createElement("p"), { textContent: text }));
    if (this.spoken.children.length > SPOKEN_LINES) this.spoken.firstChild.remove();
    if (!this.alert.checked || !isWanted(this.wanted.value, message.class)) return;
    document.body.classList.add("alarm");
    clearTimeout(this.calm);
    this.calm = setTimeout(() => document.body.classList.remove("alarm"), ALARM_MS);
    navigator.vibrate?.([200, 100, 200]);
    notify(text, message.class);
  }

  tick() {
    const now = performance.now(), silent = now - this.heard > SILENT_MS;
    const text = !this.connected ? "seldrt view has ended, or cannot be reached"
      : silent ? "nothing heard: is the daemon running?" : "listening";
    if (this.state.textContent !== text) this.state.textContent = text; // it is read out when it changes
    this.state.classList.toggle("trouble", !this.connected || silent);
    for (const microphone of this.microphones.values()) if (now - microphone.heard > SILENT_MS) microphone.forsaken();
  }
}

function notify(text, tag) {
  try {
    if (Notification.permission === "granted") new Notification(text, { tag, renotify: true });
  } catch { /* telephones have no notifications of pages; they vibrate */ }
}

if (typeof document !== "undefined") new Page().listen();
