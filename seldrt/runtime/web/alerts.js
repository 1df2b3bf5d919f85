// Who is alerted of what, and how: the classes that are wanted, what this browser can do, what is to be confirmed.

import { keep, kept, read } from "./storage.js";
import { chosen, named, strange } from "./names.js";

const FLASH_MS = 2000; // so long it flashes
const READ_MS = 1000; // what is tapped sooner was meant for something else
const SHOWN = 4; // of the alerts that wait, the latest
const SILENCE_MS = 5000; // silence that is over sooner, a connection that comes back, is no reason for an alert, nor is
const TROUBLE_MS = 15000; // what a daemon says of itself: it goes on saying for 10 s what happened once
const PATTERN = [300, 150, 300, 150, 600]; // of vibration; until somebody confirms it comes
const AGAIN_MS = 3000; // every so often,
const SHAKEN_MS = 60000; // for so long

const UNHEARD_OF = "\0"; // like a class that no words mean

/** The kind of trouble that nothing comes. */
export const SILENCE = "silence";

/** Writes what is read out when it changes, and so only then. */
export function tell(element, text, trouble = false) {
  if (element.textContent !== text) element.textContent = text;
  element.classList.toggle("trouble", trouble);
}

const INSECURE = "no, for that the address must be https or localhost";

/** What of an alert does not work in this browser, or not yet, in words; whether notifications were tried, and failed, and
 * whether it refused to keep the screen on. */
export function unable(failed, refused) {
  const granted = window.Notification?.permission;
  const notifications = !window.isSecureContext ? INSECURE
    : !granted || failed ? "no, this browser has none for pages"
    : granted === "denied" ? "no, they were refused: allow them in the settings of the browser"
    : granted === "default" ? "not yet: “try it” asks for them" : "yes";
  const vibration = !navigator.vibrate ? "no, this browser cannot"
    : navigator.userActivation?.hasBeenActive === false ? "not before the first tap" : "yes, where the device can";
  const calm = window.matchMedia?.("(prefers-reduced-motion: reduce)").matches; // see page.css
  const screen = !window.isSecureContext ? INSECURE : !navigator.wakeLock ? "no, this browser cannot"
    : refused ? "no, the device refuses it now" : "yes";
  const flash = calm ? "a red frame, no flashing" : "yes";
  const all = { flash, vibration, notifications, "keeps the screen on": screen };
  return Object.entries(all).filter(([, can]) => !can.startsWith("yes")).map(([what, can]) => `${what}: ${can}`).join("; ");
}

export class Alerts {
  constructor() {
    const found = (id) => document.getElementById(id);
    this.alert = found("alert");
    this.wanted = found("wanted");
    this.choice = found("choice");
    this.classes = found("classes");
    this.unable = found("unable");
    this.banner = found("alarm");
    this.boxes = new Map(); // by class, of all that are known
    this.told = new Map(); // the classes that each microphone may report
    this.troubles = new Map();
    this.waiting = new Map(); // alerts that nobody has confirmed yet, by what they are of, the latest last
    this.wanted.addEventListener("input", () => this.choose(this.wanted.value));
    this.alert.addEventListener("change", () => {
      keep("alert", this.alert.checked ? "yes" : "no");
      if (this.alert.checked) this.ask();
      this.arm();
    });
    window.addEventListener("storage", ({ key }) => { // chosen in another tab
      if (key === "alert" || key === "wanted") this.remember();
    });
    found("try").addEventListener("click", () => {
      this.ask();
      this.waiting.delete("try"); // so that this very tap does not confirm it
      this.call("this is how an alert looks", "try");
    });
    for (const kind of ["click", "keydown"]) document.addEventListener(kind, () => this.confirm()); // no pointerdown: what
    // moves up then, when the banner goes, would be clicked
    document.addEventListener("visibilitychange", () => this.stayAwake());
    for (const [of, text, times] of read("waiting").filter(Array.isArray)) this.waiting.set(of, { text, times, since: performance.now() });
    document.body.classList.toggle("alarm", this.waiting.size > 0);
    this.remember();
  }

  /** What was chosen before, or in another tab. */
  remember() {
    this.wanted.value = kept("wanted") ?? this.wanted.value;
    this.alert.checked = (kept("alert") ?? (this.alert.checked ? "yes" : "no")) === "yes";
    this.show();
    this.arm();
  }

  /** Keeps the screen on for alerts; without them nothing waits. */
  arm() {
    if (!this.alert.checked) this.forget(() => true);
    this.stayAwake();
  }

  // --- of what

  wants(name) {
    return this.alert.checked && chosen(this.wanted.value, [...this.boxes.keys()]).includes(name);
  }

  choose(text) {
    this.wanted.value = text;
    keep("wanted", text);
    this.show();
  }

  /** The classes that a microphone may report: those of all are what there is to choose from; none, if it does not tell. */
  know(source, names) {
    if (this.told.get(source)?.join() === names.join()) return;
    this.told.set(source, names);
    this.learn(names);
    this.show();
  }

  /** Classes that there are. */
  learn(names) {
    const fresh = names.filter((name) => !this.boxes.has(name));
    for (const name of fresh) {
      const label = document.createElement("label"), box = document.createElement("input");
      box.type = "checkbox";
      box.addEventListener("change", () => this.pick());
      label.append(box, ` ${named(name)}`);
      this.classes.append(label);
      this.boxes.set(name, box);
    }
    if (fresh.length) this.show();
  }

  /** Whether all classes are known that there can be. */
  get complete() {
    return this.told.size > 0 && [...this.told.values()].every((names) => names.length);
  }

  /** Takes over what is ticked; what was written and means no known class stays. All that there can be is no word. */
  pick() {
    const names = [...this.boxes.keys()], ticked = names.filter((name) => this.boxes.get(name).checked);
    const rest = strange(this.wanted.value, names), all = ticked.length === names.length && !rest.length && this.complete;
    this.choose(all ? "" : [...ticked.map(named), ...rest].join(", ") || "nothing");
  }

  /** Says what is chosen, so that a word that means nothing is seen. */
  show() {
    const text = this.wanted.value, names = [...this.boxes.keys()], wanted = chosen(text, names);
    for (const [name, box] of this.boxes) box.checked = wanted.includes(name);
    const unknown = strange(text, names).map((phrase) => `“${phrase}”`).join(", ");
    const complete = this.complete, all = chosen(text, [UNHEARD_OF]).length > 0 || (complete && wanted.length === names.length);
    const wrong = complete && unknown !== "", why = `; ${wrong ? "no sound is called" : "not heard here yet:"} ${unknown}`;
    const none = complete || !unknown ? "nothing" : "nothing so far";
    const what = !unknown && all ? "everything" : wanted.map(named).join(", ") || none;
    tell(this.choice, `alerts for ${what}${unknown && why}`, wrong);
    this.wanted.setAttribute("aria-invalid", String(wrong));
  }

  // --- how

  /** Flashes, unless it says nothing new, vibrates and notifies; what it says last of something stays until somebody confirms
   * it. */
  call(text, of) {
    const before = this.waiting.get(of);
    this.began = performance.now();
    this.waiting.delete(of);
    const since = before?.text === text ? before.since : this.began;
    this.waiting.set(of, { text, times: (before?.times ?? 0) + 1, since });
    document.body.classList.add("alarm");
    if (since === this.began) {
      document.body.classList.add("flash");
      clearTimeout(this.calm);
      this.calm = setTimeout(() => document.body.classList.remove("flash"), FLASH_MS);
    }
    this.shake();
    this.notify(text, of);
    this.changed();
  }

  shake() {
    this.shaken = performance.now();
    navigator.vibrate?.(PATTERN);
  }

  notify(text, tag) {
    try {
      if (Notification.permission === "granted") new Notification(text, { tag, renotify: true });
    } catch { // telephones have no notifications of pages; they vibrate
      this.failed = true;
    }
  }

  /** Confirms what has waited for so long that it can have been read. */
  confirm() {
    const now = performance.now();
    this.forget(({ since }) => now - since >= READ_MS);
  }

  forget(these) {
    const before = this.waiting.size;
    for (const [of, said] of [...this.waiting]) if (these(said)) this.waiting.delete(of);
    if (this.waiting.size === before) return;
    if (!this.waiting.size) {
      navigator.vibrate?.(0);
      document.body.classList.remove("alarm", "flash");
    }
    this.changed();
  }

  changed() {
    keep("waiting", JSON.stringify([...this.waiting].map(([of, { text, times }]) => [of, text, times])), true);
    this.print();
  }

  /** What waits in the banner, the latest first; that, or what went wrong last, in the title. */
  print() {
    const waiting = [...this.waiting.values()].reverse();
    const and = (shown) => waiting.length > shown ? [`and ${waiting.length - shown} more`] : [];
    const lines = waiting.map(({ text, times }) => times > 1 ? `${text} (${times} times)` : text);
    const [trouble] = [...this.troubles.values()].sort((a, b) => b.since - a.since);
    const banner = [...lines.slice(0, SHOWN), ...and(SHOWN), "(tap or press a key to confirm)"].join("\n");
    tell(this.banner, lines.length ? banner : "");
    const title = lines.length ? `⚠ ${[waiting[0].text, ...and(1)].join(" ")}` : trouble ? `⚠ ${trouble.text}` : "seldrt";
    if (document.title !== title) document.title = title;
  }

  /** What is in trouble, "" for all, with the words for it and its kinds: alerts may not come from there, and that is
   * alerted of, too, once for each kind as long as that lasts. */
  tick(troubles) {
    const now = performance.now(), before = this.troubles;
    this.troubles = new Map();
    for (const [of, { text, kinds }] of troubles) {
      const old = before.get(of)?.kinds ?? new Map(), hidden = of !== "" && troubles.has("");
      const lasting = hidden ? [...old].filter(([, { told }]) => told) : kinds.map((kind) => [kind, old.get(kind) ?? { since: now }]);
      const since = hidden ? -1 : Math.max(...lasting.map(([, kind]) => kind.since));
      this.troubles.set(of, { text, since, kinds: new Map(lasting) });
      const due = ([name, kind]) => !kind.told && now - kind.since >= (name === SILENCE ? SILENCE_MS : TROUBLE_MS);
      if (!this.alert.checked || !lasting.some(due)) continue;
      for (const [, kind] of lasting) kind.told = true; // the words are those of all
      this.call(`alerts may fail: ${text}`, `trouble ${of}`);
    }
    if (this.waiting.size && now - this.began < SHAKEN_MS && now - this.shaken >= AGAIN_MS) this.shake();
    tell(this.unable, unable(this.failed, this.refused));
    this.print();
  }

  ask() {
    if (window.isSecureContext && window.Notification?.permission === "default") Notification.requestPermission();
  }

  /** A page whose screen sleeps sees nothing; what was granted ends when the page is hidden. */
  async stayAwake() {
    try {
      await this.awake?.release();
      this.awake = this.alert.checked ? await navigator.wakeLock?.request("screen") : null;
      this.refused = false;
    } catch { // it is hidden, or the battery is low
      this.refused = true;
    }
  }
}
