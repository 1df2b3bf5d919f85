// What daemons hear: the messages of docs/protocol.md as server-sent events, the table of events, and what is in trouble.

import { Alerts, SILENCE, tell } from "./alerts.js";
import { Microphone, degrees, speak, words } from "./microphone.js";
import { named } from "./names.js";
import { keep, kept, read } from "./storage.js";

const LOG_LINES = 500, SILENT_MS = 3000;
const ENDED_MS = 10000; // so long somebody can read of a microphone that it has ended
const DEAD_MS = 10000; // so long without a sign of life, and a connection is given up: a telephone that slept may not know

class Page {
  constructor() {
    this.microphones = new Map();
    this.standing = []; // what is wrong with daemons that are not heard, and who was heard there
    this.gone = new Set(); // who has ended as somebody wished
    this.rows = new Map(); // by event, for as long as the row stands in the table
    this.log = document.getElementById("log");
    this.state = document.getElementById("state");
    this.alerts = new Alerts();
    this.heard = performance.now();
    this.last = kept("last", true) ?? ""; // the number of the last event that this tab was told of, and
    this.before = ""; // that when the connection began
    this.sources = new Set(read("sources")); // the microphones that were ever heard in this tab
    this.player = this.playing = null; // what sounds, and the button that began it
    setInterval(() => this.tick(), 500);
  }

  listen() {
    this.messages?.close();
    const messages = this.messages = new EventSource("messages");
    this.alive = performance.now();
    messages.onopen = () => {
      this.connected = true;
      this.alive = this.heard = performance.now();
      this.before = this.last;
    };
    messages.onerror = () => {
      this.connected = false;
      this.tick();
    };
    const on = (kind, take) => messages.addEventListener(kind, ({ data, lastEventId }) => {
      if (messages !== this.messages) return;
      if (this.isDead()) return this.anew(); // what comes now, after the page was frozen, comes again as what was missed
      this.alive = performance.now();
      take(JSON.parse(data), lastEventId);
      if (kind === "now" || (this.last && lastEventId)) this.told(lastEventId); // the first time not before all of the past
    });
    on("message", (message) => this.take(message));
    on("about", ({ clips }) => document.body.classList.toggle("clips", clips)); // whether there are sound files
    on("standing", (standing) => { this.standing = standing; });
    on("past", (message, number) => this.event(message, false, number));
    on("now", () => {});
    on("alive", () => {});
  }

  told(number) {
    if (number !== this.last) keep("last", this.last = number, true);
  }

  isDead() {
    return performance.now() - this.alive > DEAD_MS;
  }

  /** Gives the connection up for another. */
  anew() {
    this.connected = false;
    this.listen();
  }

  /** Remembers a microphone, also for when the page is loaded anew. */
  meet(source) {
    if (!this.sources.has(source)) keep("sources", JSON.stringify([...this.sources.add(source)]), true);
  }

  take(message) {
    this.heard = performance.now();
    this.meet(message.source);
    if (!this.microphones.has(message.source)) this.microphones.set(message.source, new Microphone(message.source));
    this.microphones.get(message.source).take(message);
    if (message.type === "status") this.alerts.know(message.source, message.classes ?? []);
    if (message.type === "event") this.event(message, true);
  }

  /** Whether an event was told of while nobody listened here: the connection was broken, or the page was loaded anew. Before
   * the first connection nothing was missed; all that another server has was. */
  missed(number) {
    const [start, count] = number.split(":"), [before, most] = this.before.split(":");
    return this.before !== "" && (start !== before || Number(count) > Number(most));
  }

  /** An event in the list. It sounds as long as it is told of live: then it is said, too, however it was learnt of. What
   * began or ended while nobody listened is told of as past; what it was told of before it was loaded anew, it has said. */
  event(message, live, number) {
    const key = `${message.source} ${message.epoch} ${message.event_id}`, known = this.rows.get(key);
    this.meet(message.source);
    if (known?.over) return; // told again after a connection broke: what has the focus stays
    const row = known ?? document.createElement("tr");
    if (!known) this.log.prepend(row);
    row.over = message.phase === "offset";
    this.keep(key, row);
    this.alerts.learn([message.class]);
    const news = live || this.missed(number), missed = !live && news && (!known || (row.over && !row.said));
    if (!news && !known && this.before) {
      row.said = true;
      if (this.alerts.wants(message.class)) this.mark(row);
    }
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
    const where = this.sources.size > 1 ? `${message.source}: ` : "";
    const text = `${where}${named(message.class)} — ${words(message.azimuth_deg, message.elevation_deg)}${when}`;
    if (!row.alerted && this.alerts.wants(message.class)) {
      this.mark(row);
      this.alerts.call(text, `${message.source} ${message.class}`);
    } else if (!row.said) {
      speak(text);
    }
    row.said = true;
  }

  /** Somebody was alerted of it. */
  mark(row) {
    row.alerted = true;
    row.className = "alerted";
  }

  write(message, row) {
    const told = [
      new Date(message.onset_ns / 1e6).toLocaleString(), message.source, `${row.alerted ? "⚠ " : ""}${named(message.class)}`,
      words(message.azimuth_deg, message.elevation_deg), degrees(message.azimuth_deg),
      degrees(message.elevation_deg), `${(message.duration_ms / 1000).toFixed(1)} s`,
    ];
    row.replaceChildren(...told.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
    const cell = Object.assign(document.createElement("td"), { className: "clip" }); // hidden where no clips are kept
    if (row.over) cell.append(this.listening(message));
    row.append(cell);
  }

  /** A button that plays the sound of an event, and stops it. */
  listening(message) {
    const button = document.createElement("button");
    const what = `${named(message.class)}, ${new Date(message.onset_ns / 1e6).toLocaleTimeString()}`;
    const says = (text, label) => { button.textContent = text; button.setAttribute("aria-label", `${label} ${what}`); };
    says("▶", "listen to");
    button.addEventListener("click", async () => {
      if (await this.play(message, button)) says("▶", "listen to");
      else says("no clip", "no clip of");
    });
    return button;
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

  /** What is wrong that no microphone here tells of: a daemon that ended as wished, or is told of itself, is none. */
  absent() {
    const told = (name) => this.microphones.has(name) || this.gone.has(name);
    const late = [...this.microphones.values()].filter((microphone) => microphone.late);
    return [
      ...this.standing.filter(({ sources }) => !sources.some(told)).map(({ text }) => text),
      ...late.map(({ name }) => `${name}: what comes is late, a connection or this device is too slow`),
    ];
  }

  tick() {
    const now = performance.now();
    if (this.isDead()) this.anew();
    const silent = now - this.heard > SILENT_MS, absent = this.absent();
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
