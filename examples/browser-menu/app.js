// The user's menu, as sidecar.js keeps it: live, and from its last copy when there is no server.

const $ = (id) => document.getElementById(id);

async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body ?? {}) });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.message);
  return found;
}

function list(items) {
  return items.map(({ name, children }) => {
    const entry = document.createElement("li");
    entry.append(name); // as text: names are written by whoever changes the menu
    if (children.length > 0) {
      const below = document.createElement("ul");
      below.append(...list(children));
      entry.append(below);
    }
    return entry;
  });
}

const config = await (await fetch("/config.json")).json();
await import(`${config.sidecar}/static/vendor/socket.io.min.js`); // sets the global `io`
const { Sidecar } = await import(`${config.sidecar}/static/sidecar.js`);

$("user").textContent = config.user ?? "nobody: /login?user=ada";
const sidecar = new Sidecar({
  url: config.sidecar,
  user: config.user,
  token: async () => (await post("/token")).token,
});
const menu = sidecar.menu();
menu.subscribe(({ items, version, stale, error }) => {
  $("menu").replaceChildren(...list(items));
  $("menu").className = stale ? "stale" : "";
  $("standing").textContent = error ? `not up to date: ${error.message}` : stale ? "asking" : `version ${version}`;
});
$("add").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { name } = event.target.elements;
  try {
    await post("/items", { name: name.value });
    name.value = "";
  } catch (error) {
    $("standing").textContent = error.message;
  }
});
await menu.start();
