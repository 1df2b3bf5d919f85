// Who is alerted of what, and how: the classes that are wanted, what this browser can do, what is to be confirmed.

const FLASH_MS = 2000; // so long it flashes, and what is tapped meanwhile was meant for something else
const SILENCE_MS = 5000; // silence that is over sooner, a connection that comes back, is no reason for an alert, nor is
const TROUBLE_MS = 15000; // what a daemon says of itself: it goes on saying for 10 s what happened once
const PATTERN = [300, 150, 300, 150, 600]; // of vibration; until somebody confirms it comes
const AGAIN_MS = 3000; // every so often,
const SHAKEN_MS = 60000; // for so long

/** The kind of trouble that nothing comes. */
export const SILENCE = "silence";

/** The name of a class for people. */
export const named = (name) => name.replaceAll("_", " ");

/** Writes what is read out when it changes, and so only then. */
export function tell(element, text, trouble = false) {
  if (element.textContent !== text) element.textContent = text;
  element.classList.toggle("trouble", trouble);
}

/** What somebody wrote down, part by part; an "and" in the name of a class parts nothing. */
function phrases(text, names) {
  const found = text.split(/[,;\n]/).flatMap((part) => exactly(part, names).length ? [part] : part.split(/\s(?:and|or)\s/i));
  return found.map((part) => part.trim()).filter((part) => parts(part).length);
}

const parts = (name) => name.toLowerCase().split(/[\s_-]+/).filter(Boolean);
const exactly = (phrase, names) => names.filter((name) => parts(name).join() === parts(phrase).join());
const isPlural = (many, one) => [one + "s", one + "es", one.replace(/y$/, "ies")].includes(many);
const isIn = (few, many) => few.every((a) => many.some((b) => a === b || isPlural(a, b) || isPlural(b, a)));

const ALL = /^(everything|all)$/i, NONE = /^(nothing|none)$/i;
const UNHEARD_OF = "\0"; // like a class that no words mean

/** The classes that a phrase means: the one of that name, else all that have its words, or their words in it. A smoke alarm
 * is an alarm then, and a baby the crying one. */
function meant(phrase, names) {
  if (ALL.test(phrase)) return names;
  const written = parts(phrase), exact = exactly(phrase, names);
  if (exact.length) return exact;
  const like = names.filter((name) => isIn(written, parts(name)) || isIn(parts(name), written));
  const same = like.filter((name) => isIn(written, parts(name)) && isIn(parts(name), written));
  return same.length ? same : like;
}

/** Those of the classes that somebody wrote down, with commas or semicolons between them; no word means all. */
export function chosen(text, names) {
  const written = phrases(text, names), found = new Set(written.flatMap((phrase) => meant(phrase, names)));
  return names.filter((name) => !written.length || found.has(name));
}

/** What somebody wrote down that means none of the classes. */
export const strange = (text, names) =>
  phrases(text, names).filter((phrase) => !ALL.test(phrase) && !NONE.test(phrase) && !meant(phrase, names).length);

const INSECURE = "no, for that the address must be https or localhost";

/** What of an alert works in this browser, in words; whether notifications were tried, and failed. */
export function able(failed) {
  const granted = window.Notification?.permission;
  const notifications = !window.isSecureContext ? INSECURE
    : !granted || failed ? "no, this browser has none for pages"
    : granted === "denied" ? "no, they were refused: allow them in the settings of the browser"
    : granted === "default" ? "when they are allowed: try it" : "yes";
  const vibration = !navigator.vibrate ? "no, this browser cannot"
    : navigator.userActivation?.hasBeenActive === false ? "after a tap" : "yes, where the device can";
  const calm = window.matchMedia?.("(prefers-reduced-motion: reduce)").matches; // see page.css
  const screen = navigator.wakeLock ? "yes" : !window.isSecureContext ? INSECURE : "no, this browser cannot";
  const flash = calm ? "a red frame, no flashing" : "yes";
  return `flash: ${flash}; vibration: ${vibration}; notifications: ${notifications}; keeps the screen on: ${screen}`;
}

export class Alerts {
  constructor() {
    const found = (id) => document.getElementById(id);
    this.alert = found("alert");
    this.wanted = found("wanted");
    this.choice = found("choice");
    this.classes = found("classes");
    this.able = found("able");
    this.banner = found("alarm");
    this.boxes = new Map(); // by class, of all that are known
    this.told = new Map(); // the classes that each microphone may report
    this.troubles = new Map();
    this.waiting = 0; // alerts that nobody has confirmed yet, and
    this.last = ""; // what the last one says
    this.wanted.value = localStorage.getItem("wanted") ?? "";
    this.alert.checked = localStorage.getItem("alert") === "yes";
    this.wanted.addEventListener("input", () => this.choose(this.wanted.value));
    this.alert.addEventListener("change", () => {
      localStorage.setItem("alert", this.alert.checked ? "yes" : "no");
      if (this.alert.checked) this.ask();
      this.stayAwake();
    });
    found("try").addEventListener("click", () => {
      this.ask();
      this.call("this is how an alert looks", "try");
    });
    for (const kind of ["pointerdown", "keydown"]) document.addEventListener(kind, () => this.confirm());
    document.addEventListener("visibilitychange", () => this.stayAwake());
    this.stayAwake();
    this.show();
  }

  // --- of what

  wants(name) {
    return this.alert.checked && chosen(this.wanted.value, [...this.boxes.keys()]).includes(name);
  }

  choose(text) {
    if (this.wanted.value !== text) this.wanted.value = text;
    localStorage.setItem("wanted", text);
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

  /** Flashes, vibrates and notifies; what it says stays until somebody confirms it. */
  call(text, tag) {
    this.waiting += 1;
    this.last = text;
    this.began = performance.now();
    document.body.classList.add("alarm", "flash");
    clearTimeout(this.calm);
    this.calm = setTimeout(() => document.body.classList.remove("flash"), FLASH_MS);
    this.shake();
    this.notify(text, tag);
    this.print();
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

  confirm() {
    if (!this.waiting || performance.now() - this.began < FLASH_MS) return;
    this.waiting = 0;
    navigator.vibrate?.(0);
    document.body.classList.remove("alarm");
    this.print();
  }

  /** What waits in the banner; that, or what went wrong last, in the title. */
  print() {
    const text = this.last + (this.waiting > 1 ? ` (and ${this.waiting - 1} more)` : "");
    const [trouble] = [...this.troubles.values()].sort((a, b) => b.since - a.since);
    tell(this.banner, this.waiting ? `${text} (tap or press a key to confirm)` : "");
    const title = this.waiting ? `⚠ ${text}` : trouble ? `⚠ ${trouble.text}` : "seldrt";
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
      if (hidden || !this.alert.checked || !lasting.some(due)) continue;
      for (const [, kind] of lasting) kind.told = true; // the words are those of all
      this.call(`alerts may fail: ${text}`, `trouble ${of}`);
    }
    if (this.waiting && now - this.began < SHAKEN_MS && now - this.shaken >= AGAIN_MS) this.shake();
    tell(this.able, able(this.failed));
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
    } catch { /* it is hidden, or the battery is low */ }
  }
}
