// What daemons hear, drawn from above: the messages of docs/protocol.md as server-sent events.

import { Alerts, SILENCE, named, tell } from "./alerts.js";

const LOG_LINES = 200, SPOKEN_LINES = 20, TRAIL_MS = 3000, SILENT_MS = 3000;
const ENDED_MS = 10000; // so long somebody can read of a microphone that it has ended
const REOPEN_MS = 3000;
const FILES = ["clips", "csv", "jsonl", "recording"]; // what a daemon only writes: trouble with these fails no alert
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

// By the number of a class: apart from each other, and with a contrast of 3 on the light and the dark ground.
export const COLOURS = [
  "#f00", "#05f", "#090", "#e0f", "#078", "#b80", "#97f", "#c08", "#760", "#91e", "#19d", "#75a", "#697", "#b40", "#f4a", "#a78",
];

/** What a degraded daemon is in trouble with, but for files: its `why` is "what: text; what: text". */
export function kinds(why) {
  const found = why.split("; ").flatMap((part) => part.match(/^\w+(?: \d+)?(?=: )/) ?? []);
  return found.length ? found.filter((what) => !FILES.includes(what)) : ["degraded"];
}

const seconds = (ns) => ns / 1e9;

class Microphone {
  constructor(name) {
    this.name = name;
    this.trails = new Map();
    this.heard = performance.now();
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

  /** What is said of it, and whether that is trouble; of which kinds, none if it fails no alert. */
  say(text, wrong, what) {
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

function dot(found, trail) {
  const [x, y] = trail.at(-1), colour = COLOURS[found.class_id % COLOURS.length];
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
  more.textContent = `azimuth ${found.azimuth_deg.toFixed(0)}°, elevation ${found.elevation_deg.toFixed(0)}°, `
    + `confidence ${found.confidence.toFixed(2)}, for ${lasted.toFixed(1)} s`;
  line.append(more);
  return line;
}

class Page {
  constructor() {
    this.microphones = new Map();
    this.standing = []; // what is wrong with daemons that are not heard, and who was heard there
    this.gone = new Set(); // who has ended as somebody wished
    this.rows = new Map(); // by event, for as long as the row stands in the table
    this.log = document.getElementById("log");
    this.state = document.getElementById("state");
    this.spoken = document.getElementById("spoken");
    this.alerts = new Alerts();
    this.heard = performance.now();
    this.player = this.playing = null; // what sounds, and the button that began it
    setInterval(() => this.tick(), 500);
  }

  listen() {
    const messages = new EventSource("messages");
    messages.onopen = () => {
      this.again = this.opened;
      this.opened = this.connected = true;
      this.heard = performance.now();
    };
    messages.onerror = () => {
      this.connected = false;
      this.tick();
      if (messages.readyState === EventSource.CLOSED) setTimeout(() => this.listen(), REOPEN_MS); // else it tries itself
    };
    messages.onmessage = ({ data }) => this.take(JSON.parse(data));
    messages.addEventListener("about", ({ data }) => this.about(JSON.parse(data)));
    messages.addEventListener("standing", ({ data }) => { this.standing = JSON.parse(data); });
    messages.addEventListener("past", ({ data }) => this.event(JSON.parse(data), false));
  }

  take(message) {
    this.heard = performance.now();
    this.gone.delete(message.source);
    if (!this.microphones.has(message.source)) this.microphones.set(message.source, new Microphone(message.source));
    this.microphones.get(message.source).take(message);
    if (message.type === "status") this.alerts.know(message.source, message.classes ?? []);
    if (message.type === "event") this.event(message, true);
  }

  /** What the server has: sound files to listen to. */
  about({ clips }) {
    document.body.classList.toggle("clips", clips);
  }

  /** An event in the list. It sounds as long as it is told of live: then it is said, too, however it was learnt of. What
   * began or ended while a connection was broken is told of as past, and was missed; at first nothing was. */
  event(message, live) {
    const key = `${message.source} ${message.epoch} ${message.event_id}`, known = this.rows.get(key);
    if (known?.over) return; // told again after a connection broke: what has the focus stays
    const row = known ?? document.createElement("tr");
    if (!known) this.log.prepend(row);
    row.over = message.phase === "offset";
    this.keep(key, row);
    this.alerts.learn([message.class]);
    const missed = !live && this.again && (!known || (row.over && !row.said));
    if (missed || (live && (!row.over || (known && !row.said)))) this.say(message, row, missed);
    this.write(message, row);
  }

  /** Keeps a row as the one that was told of last; the one that was not for the longest time makes room. */
  keep(key, row) {
    this.rows.delete(key);
    this.rows.set(key, row);
    if (this.rows.size <= LOG_LINES) return;
    const [oldest, last] = this.rows.entries().next().value;
    this.rows.delete(oldest);
    last.remove();
  }

  /** Alerts of an event once, if it is wanted; else it is read out, once, too. */
  say(message, row, missed) {
    const when = missed ? `, at ${new Date(message.onset_ns / 1e6).toLocaleTimeString()}` : "";
    const text = `${named(message.class)} — ${words(message.azimuth_deg, message.elevation_deg)}${when}`;
    if (!row.alerted && this.alerts.wants(message.class)) {
      row.alerted = true;
      row.className = "alerted";
      this.alerts.call(text, message.class);
    } else if (!row.said) {
      this.spoken.append(Object.assign(document.createElement("p"), { textContent: text }));
      if (this.spoken.children.length > SPOKEN_LINES) this.spoken.firstChild.remove();
    }
    row.said = true;
  }

  write(message, row) {
    const told = [
      new Date(message.onset_ns / 1e6).toLocaleString(), message.source, `${row.alerted ? "⚠ " : ""}${named(message.class)}`,
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

  forget(microphone) {
    this.gone.add(microphone.name);
    microphone.article.remove();
    this.microphones.delete(microphone.name);
  }

  /** What is wrong with daemons that no microphone here tells of: one that ended as wished, or is told of itself, is none. */
  absent() {
    const told = (name) => this.microphones.has(name) || this.gone.has(name);
    return this.standing.filter(({ sources }) => !sources.some(told)).map(({ text }) => text);
  }

  tick() {
    const now = performance.now(), silent = now - this.heard > SILENT_MS, absent = this.connected ? this.absent() : [];
    const text = !this.connected ? "seldrt view has ended, or cannot be reached"
      : absent.join("; ") || (silent ? "nothing heard: is the daemon running?" : "listening");
    const lost = !this.connected || silent, troubles = new Map(lost ? [["", { text, kinds: [SILENCE] }]] : []);
    for (const one of lost ? [] : absent) troubles.set(one, { text: one, kinds: [SILENCE] });
    tell(this.state, text, lost || absent.length > 0);
    for (const [name, microphone] of this.microphones) {
      if (!microphone.ended && now - microphone.heard > SILENT_MS) microphone.forsaken();
      if (microphone.ended && now - microphone.heard > ENDED_MS) this.forget(microphone);
      if (microphone.trouble) troubles.set(name, microphone.trouble);
    }
    this.alerts.tick(troubles);
  }
}

if (typeof document !== "undefined") new Page().listen();
