// Shows /api/openapi.json and /api/asyncapi.json: operations in groups, what they take and answer, a curl line for each.
// It asks for these two files and nothing else. All text is set as text, never as HTML.

import { $, base } from "./page.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const MAX_DEPTH = 4;
const COPIED_MILLISECONDS = 2000;

function make(name, options = {}, ...children) {
  const { text, attributes = {}, ...properties } = options;
  const element = Object.assign(document.createElement(name), properties);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.append(...words(text));
  element.append(...children.filter(Boolean));
  return element;
}

// `words` in backticks as code.
function words(text) {
  return text.split("`").map((part, index) => (index % 2 ? make("code", { textContent: part }) : part));
}

// Schemas

function reader(whole) {
  const at = (ref) => ref.slice(2).split("/").reduce((value, part) => value?.[part.replaceAll("~1", "/").replaceAll("~0", "~")], whole);
  const resolve = (value) => {
    let found = value ?? {};
    while (found.$ref) {
      const { $ref, ...own } = found;
      found = { ...at($ref), ...own };
    }
    if (!found.allOf) return found;
    const { allOf, ...own } = found;
    return [...allOf, own].map(resolve).reduce((one, other) => ({
      ...one,
      ...other,
      properties: { ...one.properties, ...other.properties },
      required: [...new Set([...(one.required ?? []), ...(other.required ?? [])])],
    }), {});
  };
  const name = (ref) => ref.slice(ref.lastIndexOf("/") + 1);
  return { at, resolve, name };
}

function choices(schema) {
  return schema.anyOf ?? schema.oneOf;
}

function kindOf(read, value) {
  if (value === true || value === undefined) return "anything";
  if (value === false) return "nothing";
  const schema = read.resolve(value);
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((item) => JSON.stringify(item)).join(" | ");
  const parts = choices(schema);
  if (parts) return [...new Set(parts.flatMap((part) => kindOf(read, part).split(" | ")))].join(" | ");
  const bounds = boundsOf(schema);
  const types = [schema.type ?? "anything"].flat().map((type) => {
    if (type === "array") return Array.isArray(schema.items) ? "array" : `array of ${kindOf(read, schema.items)}`;
    return schema.format ? `${type} (${schema.format})` : type;
  });
  return types.join(" | ") + bounds;
}

function boundsOf(schema) {
  const pairs = [["minLength", "maxLength", "characters"], ["minimum", "maximum", ""], ["minItems", "maxItems", "items"]];
  const found = pairs.flatMap(([least, most, what]) => {
    const low = schema[least] ?? (least === "minimum" ? schema.exclusiveMinimum : undefined);
    const high = schema[most] > Number.MAX_SAFE_INTEGER ? undefined : schema[most];
    if (low === undefined && high === undefined) return [];
    const range = low === undefined ? `at most ${high}` : high === undefined ? `at least ${low}` : `${low} to ${high}`;
    return [`${range} ${what}`.trim()];
  });
  return found.length ? `, ${found.join(", ")}` : "";
}

function rows(read, value, depth = 0, seen = []) {
  const schema = read.resolve(value);
  const part = choices(schema)?.map(read.resolve).find((one) => one.properties || one.type === "array");
  const whole = part ?? schema;
  if (whole.type === "array" && !Array.isArray(whole.items)) return rows(read, whole.items, depth, seen);
  if (depth > MAX_DEPTH || !whole.properties || seen.includes(whole.properties)) return [];
  return Object.entries(whole.properties).filter(([, field]) => field !== false).flatMap(([name, field]) => {
    const found = read.resolve(field);
    const about = found.description ?? "";
    const standard = found.default === undefined || found.default === null ? "" : ` Default: \`${JSON.stringify(found.default)}\`.`;
    return [
      { name, depth, must: whole.required?.includes(name), kind: kindOf(read, field), about: about + standard },
      ...rows(read, field, depth + 1, [...seen, whole.properties]),
    ];
  });
}

function table(entries, caption) {
  if (!entries.length) return null;
  const typed = entries.some(({ kind }) => kind !== undefined);
  const lines = entries.map(({ name, depth = 0, must, kind, about }) =>
    make("tr", {},
      make("td", { className: `deep-${depth}` },
        make("code", { textContent: name }), must && make("span", { className: "must", title: "required", textContent: " *" })),
      typed && make("td", { className: "type", textContent: kind }),
      make("td", { text: about ?? "" })));
  const heads = typed ? [caption, "type", "meaning"] : [caption, "meaning"];
  const head = make("tr", {}, ...heads.map((text) => make("th", { textContent: text, scope: "col" })));
  return make("table", { className: "fields" }, make("thead", {}, head), make("tbody", {}, ...lines));
}

function form(read, schema, caption) {
  const entries = rows(read, schema);
  return table(entries, caption) ?? make("p", { className: "type", textContent: kindOf(read, schema) });
}

// A value of this form, to begin with.
function sample(read, value, name = "", depth = 0) {
  const schema = read.resolve(value);
  if (schema.examples?.length) return schema.examples[0];
  if (schema.example !== undefined) return schema.example;
  if ("const" in schema) return schema.const;
  if (schema.default !== undefined && schema.default !== null) return schema.default;
  if (schema.enum) return schema.enum[0];
  const parts = choices(schema);
  if (parts) return sample(read, parts.find((part) => read.resolve(part).type !== "null") ?? parts[0], name, depth);
  const type = [schema.type].flat().find((one) => one !== "null");
  if (type === "object" || schema.properties) {
    if (depth > MAX_DEPTH) return {};
    const fields = Object.entries(schema.properties ?? {}).filter(([key]) => schema.required?.includes(key));
    return Object.fromEntries(fields.map(([key, field]) => [key, sample(read, field, key, depth + 1)]));
  }
  if (type === "array") {
    if (Array.isArray(schema.items)) return schema.items.slice(0, schema.minItems).map((item) => sample(read, item, item.title, depth + 1));
    return schema.minItems ? [sample(read, schema.items, name, depth + 1)] : [];
  }
  if (type === "integer" || type === "number") return schema.minimum ?? 1;
  if (type === "boolean") return true;
  if (type === "string" || !type) return schema.format === "date-time" ? "2026-11-21T12:00:00Z" : name || "text";
  return null;
}

// curl

const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

function curl(read, server, path, method, operation, parameters) {
  const place = path.replaceAll(/\{(\w+)\}/g, (_, name) => {
    const schema = read.resolve(parameters.find((one) => one.in === "path" && one.name === name)?.schema);
    return encodeURIComponent(schema.type === "integer" ? (schema.minimum || 1) : String(name).toUpperCase());
  });
  const query = parameters.filter((one) => one.in === "query" && one.required)
    .map((one) => `${encodeURIComponent(one.name)}=${encodeURIComponent(sample(read, one.schema, one.name))}`).join("&");
  const parts = [`curl ${quoted(`${server}${place}${query ? `?${query}` : ""}`)}`];
  const content = operation.requestBody && read.resolve(operation.requestBody).content;
  const json = content?.["application/json"];
  if (method !== "get" && !(method === "post" && json)) parts[0] = parts[0].replace("curl", `curl -X ${method.toUpperCase()}`);
  const needs = operation.security?.length && !operation.security.some((way) => Object.keys(way).length === 0);
  if (needs) parts.push('-H "Authorization: Token $SIDECAR_TOKEN"');
  if (json) {
    parts.push('-H "Content-Type: application/json"');
    const body = json.example ?? Object.values(json.examples ?? {})[0]?.value ?? sample(read, json.schema);
    parts.push(`-d ${quoted(JSON.stringify(body))}`);
  }
  return parts.join(" \\\n  ");
}

function copying(text, what) {
  const button = make("button", { type: "button", textContent: "Copy", attributes: { "aria-label": `Copy ${what}` } });
  button.addEventListener("click", async () => {
    const done = await copy(text);
    button.textContent = done ? "Copied" : "Select it";
    $("told").textContent = done ? `Copied: ${what}` : "It can't be copied from here: select it.";
    setTimeout(() => { button.textContent = "Copy"; }, COPIED_MILLISECONDS);
  });
  return make("div", { className: "copying" }, make("pre", { textContent: text }), button);
}

// (Without TLS browsers have no clipboard but the old one.)
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = make("textarea", { value: text, className: "unseen" });
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}

// What is shown

const idOf = (...parts) => parts.join("-").replaceAll(/[^\w.]+/g, "-").replace(/-$/, "");

function entry(id, verb, place, summary, fill, more = "") {
  const body = make("div", { className: "body" });
  const head = make("summary", {},
    make("span", { className: `verb ${verb.toLowerCase()}`, textContent: verb }),
    make("code", { textContent: place }), " ",
    make("span", { className: "about", text: summary ?? "" }));
  const details = make("details", { id, className: "operation" }, head, body);
  details.known = `${verb} ${place} ${summary ?? ""} ${more}`.toLowerCase();
  let filled = false;
  details.fill = () => {
    if (!filled) body.append(...fill().filter(Boolean));
    filled = true;
  };
  details.addEventListener("toggle", () => {
    if (!details.open) return;
    details.fill();
    history.replaceState(null, "", `#${id}`);
  });
  return details;
}

function title(text) {
  return make("h3", { textContent: text });
}

function whoMay(read, security, schemes) {
  if (!security?.length) return "No token is looked at.";
  const names = [...new Set(security.flatMap(Object.keys))].filter((name) => name !== "csrf");
  const scopes = [...new Set(security.flatMap((way) => Object.values(way).flat()))];
  const ways = names.map((name) => {
    const scheme = read.resolve(schemes[name]);
    if (scheme.type === "http" || scheme.name === "Authorization") return `\`Authorization: ${scheme.scheme ?? name} …\``;
    return `\`${scheme.name}\`${scheme.in === "cookie" ? " (cookie)" : ""}`;
  });
  const strangers = security.some((way) => !Object.keys(way).length) ? " Strangers may call it too." : "";
  const needed = scopes.length ? `Scope ${scopes.map((scope) => `\`${scope}\``).join(", ")}. ` : "";
  return `${needed}By ${[...new Set(ways)].join(", ")}.${strangers}`;
}

function answers(read, responses) {
  return Object.entries(responses ?? {}).map(([status, value]) => {
    const answer = read.resolve(value);
    const mark = make("span", { className: `number ${status < "400" ? "good" : "bad"}`, textContent: status });
    const body = Object.entries(answer.content ?? {}).flatMap(([type, media]) => [
      make("p", { className: "type", textContent: type }),
      form(read, media.schema, "field"),
    ]);
    const headers = Object.entries(answer.headers ?? {}).map(([name, value]) => {
      const header = read.resolve(value);
      return { name, kind: kindOf(read, header.schema), about: header.description };
    });
    return make("details", { className: "answer" }, make("summary", {}, mark, ` ${answer.description ?? ""}`), table(headers, "header"), ...body);
  });
}

function operationOf(read, whole, path, method, shared) {
  const operation = read.resolve(shared[method]);
  const server = new URL(whole.servers?.[0]?.url ?? "/", location.href).href.replace(/\/$/, "");
  const parameters = [...(shared.parameters ?? []), ...(operation.parameters ?? [])].map(read.resolve);
  const id = idOf(method, path);
  return entry(id, method.toUpperCase(), path, operation.summary, () => {
    const line = curl(read, server, path, method, operation, parameters);
    const body = operation.requestBody && read.resolve(operation.requestBody);
    const security = operation.security ?? whole.security;
    const given = parameters.map((one) => ({
      name: one.name, must: one.required, kind: kindOf(read, one.schema), about: `${one.in}. ${one.description ?? ""}`,
    }));
    return [
      operation.description && make("p", { text: operation.description }),
      make("p", { text: whoMay(read, security, whole.components?.securitySchemes ?? {}) }),
      copying(line, `the curl line of ${method.toUpperCase()} ${path}`),
      given.length && title("Parameters"),
      table(given, "name"),
      body && title(body.required ? "Body" : "Body (may be left out)"),
      ...Object.entries(body?.content ?? {}).flatMap(([type, media]) => [
        make("p", { className: "type", textContent: type }), form(read, media.schema, "field"),
      ]),
      title("Answers"),
      ...answers(read, operation.responses),
    ];
  });
}

function messageForm(read, message) {
  const payload = read.resolve(message.payload);
  const example = JSON.stringify(message.examples?.[0]?.payload ?? sample(read, payload), null, 2);
  const parts = Array.isArray(payload.items)
    ? payload.items.map((item, index) => [
      make("h4", { text: `argument ${index + 1}${item.title ? ` (${item.title})` : ""}${index >= payload.minItems ? ", may be left out" : ""}: ${kindOf(read, item)}` }),
      item.description && make("p", { text: item.description }),
      table(rows(read, item), "field"),
    ]).flat()
    : [form(read, payload, "field")];
  const nothing = Array.isArray(payload.items) || payload.type !== "array" ? null : make("p", { textContent: "No arguments." });
  return [nothing, ...(nothing ? [] : parts), copying(example, `an example of ${message.title ?? message.name}`)].filter(Boolean);
}

function messagesOf(read, refs, heading) {
  if (!refs?.length) return [];
  if (refs.length === 1) return [title(heading), ...messageForm(read, read.resolve(refs[0]))];
  return [title(heading), ...refs.map((ref) => {
    const message = read.resolve(ref);
    const details = make("details", { className: "answer" },
      make("summary", {}, make("code", { textContent: message.title ?? message.name }), " ", ...words(message.summary ?? "")));
    details.addEventListener("toggle", () => details.append(...messageForm(read, message)), { once: true });
    return details;
  })];
}

function socketOf(read, whole, name, operation) {
  const names = operation.messages.map(read.resolve);
  const own = [...new Set(names.map((message) => message.name))];
  const also = names[0]["x-socketio"]?.also;
  const place = own.length === 1 ? own[0] + (also ? ` · ${also}` : "") : `${names.length} messages`;
  const verb = operation.action === "send" ? "hear" : "say";
  return entry(idOf("socket", name), verb, place, operation.summary, () => [
    ...messagesOf(read, operation.messages, verb === "hear" ? "What comes" : "What is sent"),
    ...messagesOf(read, operation.reply?.messages, "What is answered"),
  ], names.map((message) => message.title ?? "").join(" "));
}

function group(id, heading, about, entries) {
  const section = make("section", { id, className: "group", attributes: { "aria-labelledby": `${id}-title` } },
    make("h2", { id: `${id}-title`, textContent: heading }), ...about, ...entries);
  section.entries = entries;
  return section;
}

function httpGroups(whole) {
  const read = reader(whole);
  const tags = new Map((whole.tags ?? []).map((tag) => [tag.name, { about: tag.description, entries: [] }]));
  for (const [path, shared] of Object.entries(whole.paths ?? {})) {
    for (const method of METHODS.filter((one) => shared[one])) {
      const tag = shared[method].tags?.[0] ?? "other";
      if (!tags.has(tag)) tags.set(tag, { about: "", entries: [] });
      tags.get(tag).entries.push(operationOf(read, whole, path, method, shared));
    }
  }
  return [...tags].filter(([, { entries }]) => entries.length)
    .map(([name, { about, entries }]) => group(idOf("tag", name), name, about ? [make("p", { text: about })] : [], entries));
}

function socketGroups(whole) {
  const read = reader(whole);
  return Object.entries(whole.channels ?? {}).map(([name, channel]) => {
    const entries = Object.entries(whole.operations ?? {})
      .filter(([, operation]) => operation.channel.$ref === `#/channels/${name}`)
      .map(([id, operation]) => socketOf(read, whole, id, operation));
    const server = read.resolve(channel.servers?.[0] ?? {});
    const root = `${server.protocol}://${server.host}${(server.pathname ?? "").replace(/\/$/, "")}`;
    const socketio = channel.servers?.[0]?.$ref?.endsWith("/socketio");
    const namespaces = channel.parameters?.namespace?.enum?.map((one) => `\`${one}\``).join(" or ") ?? `\`${channel.address}\``;
    const about = [
      make("p", { text: socketio ? `\`${root}/\`, namespace ${namespaces}` : `\`${root}${channel.address}\`` }),
      make("p", { text: channel.description ?? "" }),
      table(Object.entries(channel["x-closeCodes"] ?? {}).map(([code, text]) => ({ name: code, about: text })), "close code"),
    ].filter(Boolean);
    return group(idOf("channel", name), channel.title ?? name, about, entries);
  });
}

function list(heading, sections) {
  const items = sections.map((section) => {
    const link = make("a", { href: `#${section.id}`, textContent: section.querySelector("h2").textContent });
    link.append(make("span", { className: "count", textContent: section.entries.length }));
    section.link = make("li", {}, link);
    return section.link;
  });
  $("groups").append(make("li", { className: "kind", textContent: heading }), ...items);
}

// Searching

function search() {
  const wanted = $("query").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const section of document.querySelectorAll(".group")) {
    const heading = section.querySelector("h2").textContent.toLowerCase();
    let shown = 0;
    for (const details of section.entries) {
      const fits = wanted.every((word) => details.known.includes(word) || heading.includes(word));
      details.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    section.hidden = section.link.hidden = shown === 0;
    section.link.querySelector(".count").textContent = shown;
    count += shown;
  }
  $("found").textContent = wanted.length ? `${count} found` : "";
}

function go() {
  const target = $(location.hash.slice(1));
  if (!target) return;
  if (target.matches("details")) {
    target.fill();
    target.open = true;
  }
  target.scrollIntoView();
}

async function load(name) {
  const answer = await fetch(`${base}/api/${name}`);
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
  return answer.json();
}

function show(name, what, groups) {
  return load(name).then((whole) => {
    const sections = groups(whole);
    return { what, sections, about: whole.info?.description ?? "" };
  });
}

async function begin() {
  const wanted = [
    show("openapi.json", "HTTP", httpGroups),
    show("asyncapi.json", "Sockets", socketGroups),
  ];
  for (const result of await Promise.allSettled(wanted)) {
    if (result.status === "rejected") {
      $("problem").hidden = false;
      $("problem").textContent = `This can't be shown: ${result.reason.message}`;
      continue;
    }
    const { what, sections, about } = result.value;
    $("content").append(make("p", { className: "intro", text: about }), ...sections);
    list(what, sections);
  }
  $("content").setAttribute("aria-busy", "false");
  search();
  go();
}

$("query").addEventListener("input", search);
$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const first = document.querySelector(".operation:not([hidden]) > summary");
  if (first) first.focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey && !/^(INPUT|TEXTAREA)$/.test(event.target.tagName)) {
    event.preventDefault();
    $("query").focus();
  }
  if (event.key === "Escape" && event.target === $("query")) {
    $("query").value = "";
    search();
  }
});
window.addEventListener("hashchange", go);
begin();
