// What the pages share: who looks at them, asking the API, making elements, and showing what strangers wrote. All text is
// set as text, never as HTML.

export const base = document.body.dataset.base;
export const namespace = document.body.dataset.namespace;
export const $ = (id) => document.getElementById(id);
let known = null;

/** Who looks at the page, as /api/session says; asked once, by `logIn`. */
export const session = () => known;

export async function logIn() {
  known = await get("session");
  return known;
}

export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** What the JSON says, or the text itself if it is none. */
export function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** The answer of our API. Throws an Error with `status`, `errors` and `wait` (Retry-After, in seconds) if it is a refusal. */
export async function call(path, options = {}) {
  const response = await fetch(`${base}/api/${path}`, { ...options, headers: { Accept: "application/json", ...options.headers } });
  const body = parsed(await response.text());
  if (response.ok) return body;
  throw Object.assign(new Error(body.detail ?? `The server answered ${response.status}.`), {
    status: response.status,
    errors: body.errors ?? [],
    wait: Number(response.headers.get("Retry-After")) || 0,
  });
}

export const get = (path) => call(path);

/** The header that a write needs which rests on the login cookie. */
export async function csrf() {
  const { csrf_token: given } = await get("session");
  return given ? { "X-CSRF-Token": given } : {};
}

export function tell(problem) {
  $("problem").textContent = problem ?? "";
  $("problem").hidden = !problem;
}

export const duration = (seconds) => {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 60) return `${Math.round(seconds * 10) / 10} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
};

export const moment = (text) => (text ? new Date(text).toLocaleString() : "");

const UNSEEN = /(?![\n\t\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

const sign = (character) => {
  const code = character.codePointAt(0);
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
};

/** Text of strangers with signs in place of what can't be seen, colours a terminal or turns the direction of writing. */
export const visible = (text) => String(text).replace(UNSEEN, sign);

const octal = (character) =>
  [...new TextEncoder().encode(character)].map((byte) => `\\${byte.toString(8).padStart(3, "0")}`).join("");

/** The text as one word of bash or zsh, that does nothing else while it is pasted: null if it can't be one. A tab would
 * complete; ! and ^ ask for older commands where a shell has lost sight of the quote, as in its second line. */
export function quoted(text) {
  if (text.includes("\0")) return null;
  const plain = text.search(UNSEEN) < 0 && !text.includes("\t") && !(text.includes("\n") && /[!^]/.test(text));
  if (plain) return `'${text.replaceAll("'", "'\\''")}'`;
  return `$'${text.replaceAll("\\", "\\\\").replace(/[\t'!^]/g, octal).replace(UNSEEN, octal)}'`;
}
