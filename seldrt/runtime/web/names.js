// The names of classes, as people read and write them.

/** The name of a class for people. */
export const named = (name) => name.replaceAll("_", " ");

/** What somebody wrote down, part by part; an "and" in the name of a class parts nothing. */
function phrases(text, names) {
  const found = text.split(/[,;]/).flatMap((part) => exactly(part, names).length ? [part] : part.split(/\s(?:and|or)\s/i));
  return found.map((part) => part.trim()).filter((part) => parts(part).length);
}

const parts = (name) => name.toLowerCase().split(/[\s_-]+/).filter(Boolean);
const exactly = (phrase, names) => names.filter((name) => parts(name).join() === parts(phrase).join());
const isPlural = (many, one) => [one + "s", one + "es", one.replace(/y$/, "ies")].includes(many);
const isIn = (few, many) => few.every((a) => many.some((b) => a === b || isPlural(a, b) || isPlural(b, a)));

const ALL = /^(everything|all)$/i, NONE = /^(nothing|none)$/i;

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
