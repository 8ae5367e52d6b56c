// What the parts of the dashboard share: who looks at it, asking the API, and making elements.

export const base = document.body.dataset.base;
export const namespace = document.body.dataset.namespace;
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

export async function get(path) {
  const response = await fetch(`${base}/api/${path}`, { headers: { Accept: "application/json" } });
  const body = await response.json();
  if (!response.ok) throw Object.assign(new Error(body.detail), { status: response.status });
  return body;
}

export function tell(problem) {
  const place = document.getElementById("problem");
  place.textContent = problem ?? "";
  place.hidden = !problem;
}

export const duration = (seconds) => {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 60) return `${Math.round(seconds * 10) / 10} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
};
