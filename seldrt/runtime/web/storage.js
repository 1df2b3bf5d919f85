// What the browser remembers, as far as it may.

/** What the browser keeps of this page, for good or (`session`) for this tab; nothing, where it may not. */
export function kept(key, session = false) {
  try {
    return (session ? window.sessionStorage : window.localStorage).getItem(key);
  } catch {
    return null;
  }
}

/** A list that is kept for this tab; an empty one, where there is none. */
export function read(key) {
  try {
    const found = JSON.parse(kept(key, true));
    return Array.isArray(found) ? found : [];
  } catch {
    return [];
  }
}

export function keep(key, text, session = false) {
  try {
    (session ? window.sessionStorage : window.localStorage).setItem(key, text);
  } catch { /* cookies are blocked, or it is full: it is forgotten with the page */ }
}
