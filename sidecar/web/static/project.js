// A project as a whole, beside its deployments: figures of the last 30 days, a badge to copy, and (for admins) its end.
// All text is set as text, never as HTML.

import { $, base, duration, element, get, session, tell } from "./page.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 48;
const PAUSE_MS = 2000;

let shown = null;
let timer = null;
let took = 0;

/** Show the figures of this project, or of none. */
export async function openProject(name) {
  shown = name;
  clearTimeout(timer);
  timer = null;
  $("project").hidden = true;
  $("delete-dialog").close();
  if (name === null) return;
  showBadge();
  $("delete").hidden = !session().scopes.includes("admin");
  await load();
}

/** There was news of it: its figures are asked for again, soon, and never so often that the server only counts. */
export function refreshProject() {
  if (shown === null || timer !== null) return;
  timer = setTimeout(() => {
    timer = null;
    load().catch((error) => tell(error.message));
  }, Math.max(PAUSE_MS, 10 * took));
}

async function load() {
  const name = shown;
  const began = performance.now();
  const figures = await get(`projects/${encodeURIComponent(name)}/metrics`);
  took = performance.now() - began;
  if (name !== shown) return;
  show(figures);
  $("badge-image").src = badgeAddress(); // the same address: asked for again, and mostly answered 304
  $("project").hidden = false;
}

const percent = (rate) => (rate === null ? "–" : `${Math.floor(rate * 1000) / 10} %`);
const time = (seconds) => (seconds === null ? "–" : duration(seconds));

function show(figures) {
  const { counts, duration: durations, days, steps } = figures;
  const facts = [
    ["Succeeded", percent(figures.success_rate)],
    ["Deployments", String(counts.total)],
    ["Duration, p50", time(durations.p50)],
    ["Duration, p95", time(durations.p95)],
  ];
  $("figures").replaceChildren(
    ...facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
  );
  $("trend").replaceChildren(trend(days));
  $("trend-ends").replaceChildren(element("span", {}, days[0].day), element("span", {}, days.at(-1).day));
  $("step-figures").hidden = steps.length === 0;
  $("step-rows").replaceChildren(
    ...steps.map((step) =>
      element(
        "tr",
        {},
        element("th", { scope: "row" }, step.name),
        ...[String(step.count), percent(step.success_rate), time(step.p50), time(step.p95)].map((text) =>
          element("td", {}, text),
        ),
      ),
    ),
  );
}

function drawn(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** A bar for each day, as high as it had deployments: how they ended, from the bottom up. */
function trend(days) {
  const most = Math.max(1, ...days.map((day) => day.total));
  const wide = 300 / days.length;
  const failed = days.reduce((sum, day) => sum + day.failed, 0);
  const all = days.reduce((sum, day) => sum + day.total, 0);
  return drawn(
    "svg",
    {
      viewBox: `0 0 300 ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": `${all} deployments in ${days.length} days, ${failed} failed; at most ${most} a day`,
    },
    ...days.map((day, place) => {
      let top = HEIGHT;
      const bars = ["success", "failed", "other"].map((kind) => {
        const height = (day[kind] / most) * (HEIGHT - 2);
        top -= height;
        return drawn("rect", { class: kind, x: place * wide + 1, y: top, width: Math.max(1, wide - 2), height });
      });
      const words = `${day.day}: ${day.total} deployments, ${day.success} succeeded, ${day.failed} failed`;
      const median = day.p50 === null ? "" : `, p50 ${duration(day.p50)}`;
      const ground = drawn("rect", { class: "ground", x: place * wide, y: 0, width: wide, height: HEIGHT });
      return drawn("g", {}, ground, ...bars, drawn("title", {}, words + median));
    }),
  );
}

// The badge

function badgeAddress() {
  const kind = $("badge-kind").value;
  const name = encodeURIComponent(shown).replace(/[()]/g, (sign) => `%${sign.charCodeAt(0).toString(16)}`);
  return `${location.origin}${base}/api/badges/${name}.svg${kind === "status" ? "" : `?kind=${kind}`}`;
}

function showBadge() {
  const address = badgeAddress();
  $("badge-image").src = address;
  $("badge-image").alt = `${$("badge-kind").selectedOptions[0].textContent} of ${shown}`;
  $("badge-text").value = `![deploy](${address})`;
  $("badge-copy").textContent = "Copy";
}

async function copyBadge() {
  $("badge-text").select();
  try {
    await navigator.clipboard.writeText($("badge-text").value);
  } catch {
    document.execCommand("copy"); // the clipboard is there for https and this machine only
  }
  $("badge-copy").textContent = "Copied";
}

// Its end

function ask() {
  $("delete-name").textContent = shown;
  $("delete-problem").hidden = true;
  $("delete-yes").disabled = false;
  $("delete-yes").textContent = "Delete it";
  $("delete-dialog").showModal();
}

async function remove() {
  const name = shown;
  $("delete-yes").disabled = true;
  $("delete-yes").textContent = "Deleting …";
  try {
    await removed(name);
    if (shown === name) $("delete-dialog").close();
  } catch (error) {
    if (shown !== name) return void tell(error.message);
    $("delete-problem").textContent = error.message;
    $("delete-problem").hidden = false;
    $("delete-yes").disabled = false;
    $("delete-yes").textContent = "Try again";
  }
}

/** A long deletion goes on by itself; it is waited for all the same. */
async function removed(name) {
  const headers = session().csrf_token ? { "X-CSRF-Token": session().csrf_token } : {};
  for (let first = true; ; first = false) {
    const response = await fetch(`${base}/api/projects/${encodeURIComponent(name)}`, { method: "DELETE", headers });
    if (response.status === 404 && !first) return;
    const body = await response.json();
    if (!response.ok) throw new Error(body.detail);
    if (body.finished) return;
  }
}

$("badge-kind").addEventListener("change", showBadge);
$("badge-copy").addEventListener("click", copyBadge);
$("delete").addEventListener("click", ask);
$("delete-no").addEventListener("click", () => $("delete-dialog").close());
$("delete-yes").addEventListener("click", remove);
