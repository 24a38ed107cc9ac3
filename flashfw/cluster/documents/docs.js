"use strict";
const ENDED = ["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"];
const FORMS = ["application/x-www-form-urlencoded", "multipart/form-data"];
const SAMPLES = {
  date: "2026-01-31", "date-time": "2026-01-31T12:00:00Z", time: "12:00:00", uuid: "00000000-0000-4000-8000-000000000000",
  email: "a@example.com", uri: "https://example.com", binary: "",
};
const byId = (id) => document.getElementById(id);
/** Where a function is on the page; no name of an endpoint has a colon in this place. */
const anchor = (id) => `fn:${id}`;
let doc = { paths: {} };

/** An element with attributes (functions are listeners) and children; text is never parsed as HTML. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** What a schema says after its reference is followed; parts of an allOf become one. */
function resolve(schema, depth = 0) {
  if (schema === true || schema == null) return {};
  if (schema.$ref && depth < 8) {
    const target = schema.$ref.split("/").slice(1).reduce((at, key) => at && at[key], doc);
    return { ...resolve(target, depth + 1), ...schema, $ref: undefined };
  }
  if (!schema.allOf) return schema;
  return schema.allOf.map((part) => resolve(part, depth + 1)).reduce((all, part) => ({
    ...all, ...part, properties: { ...all.properties, ...part.properties },
    required: [...(all.required || []), ...(part.required || [])],
  }), { ...schema, allOf: undefined });
}

/** A value that fits the schema, to begin with in a form. */
function example(given, depth = 0) {
  const schema = resolve(given);
  const choices = schema.anyOf || schema.oneOf;
  if ("default" in schema) return schema.default;
  if ("const" in schema) return schema.const;
  if (schema.examples && schema.examples.length) return schema.examples[0];
  if (schema.enum) return schema.enum[0];
  if (choices) return example(choices.find((choice) => resolve(choice).type !== "null") || {}, depth);
  const type = Array.isArray(schema.type) ? schema.type.find((name) => name !== "null") : schema.type;
  if (type === "object" || schema.properties) {
    const names = Object.entries(schema.properties || {});
    const required = schema.required || [];
    const shown = depth < 3 ? names : names.filter(([name]) => required.includes(name) && depth < 6);
    return Object.fromEntries(shown.map(([name, inner]) => [name, example(inner, depth + 1)]));
  }
  if (type === "array") {
    return schema.prefixItems ? schema.prefixItems.map((item) => example(item, depth + 1))
      : depth < 4 && schema.items ? [example(schema.items, depth + 1)] : [];
  }
  if (type === "integer" || type === "number") return schema.minimum ?? (schema.exclusiveMinimum ?? -1) + 1;
  if (type === "boolean") return false;
  if (type === "string") return SAMPLES[schema.format] ?? "";
  return type === "null" ? null : {};
}

/** The type in a line: `string`, `integer[]`, `"a" | "b"`, `User`. */
function typeText(schema) {
  if (schema == null || schema === true || !Object.keys(schema).length) return "anything";
  if (schema.$ref) return schema.$ref.split("/").pop();
  const choices = schema.anyOf || schema.oneOf;
  if (choices) return choices.map(typeText).join(" | ");
  if (schema.allOf) return schema.allOf.map(typeText).join(" & ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.type === "array") return schema.items ? `${typeText(schema.items)}[]` : "array";
  if (schema.type === "object" && schema.additionalProperties instanceof Object) return `{key: ${typeText(schema.additionalProperties)}}`;
  const type = Array.isArray(schema.type) ? schema.type.join(" | ") : schema.type || "anything";
  return schema.format ? `${type} (${schema.format})` : type;
}

function fieldRow(name, schema, required, place) {
  const bounds = [["minimum", "≥"], ["exclusiveMinimum", ">"], ["maximum", "≤"], ["exclusiveMaximum", "<"], ["maxLength", "length ≤"]]
    .filter(([key]) => key in schema).map(([key, sign]) => `${sign} ${schema[key]}`);
  const notes = [place, "default" in schema && `default ${JSON.stringify(schema.default)}`, ...bounds, schema.description];
  return make("tr", {},
    make("th", { scope: "row" }, make("code", { class: required ? "must" : null, title: required ? "required" : null }, name)),
    make("td", {}, make("code", {}, typeText(schema))), make("td", {}, notes.filter(Boolean).join(" · ")));
}

/** A schema as a table of its fields, or in one line; what it refers to is shown in place, two levels deep. */
function schemaView(title, given) {
  const schema = resolve(given);
  const entries = Object.entries(schema.properties || {});
  const rows = entries.flatMap(([name, field]) => {
    const items = resolve(field).type === "array" ? resolve(field).items : field;
    const inner = Object.entries((items && items.$ref && resolve(items).properties) || {});
    return [fieldRow(name, field, (schema.required || []).includes(name)), ...inner.map(([key, value]) =>
      fieldRow(`${name}.${key}`, value, (resolve(items).required || []).includes(key)))];
  });
  return [make("h3", {}, title), rows.length ? make("table", { class: "fields" }, make("tbody", {}, ...rows))
    : make("p", {}, make("code", {}, typeText(given)))];
}

/** Every function as {id, kind, path, method, operation}, in the order of the document. */
function functions() {
  const found = [];
  for (const [path, item] of Object.entries(doc.paths)) {
    for (const [key, value] of Object.entries(item)) {
      const mark = key === "x-flashfw" ? value : value && value["x-flashfw"];
      if (!mark) continue;
      const bare = key === "x-flashfw" || key === "x-websocket";
      const label = mark.kind === "job" ? "job" : key === "x-websocket" ? "ws" : bare ? "app" : key;
      found.push({ ...mark, path, label, method: bare ? null : key.toUpperCase(), operation: key === "x-flashfw" ? item : value });
    }
  }
  return found;
}

function card(fn) {
  const { operation } = fn;
  const parameters = (operation.parameters || []).filter((parameter) => parameter.name);
  const content = Object.entries((operation.requestBody && operation.requestBody.content) || {})[0];
  const output = operation.responses && operation.responses["200"] && operation.responses["200"].content;
  const rows = parameters.map((p) => fieldRow(p.name, { description: p.description, ...p.schema }, p.required, p.in));
  return make("article", { id: anchor(fn.id), "data-text": `${fn.id} ${fn.path} ${operation.summary || ""}`.toLowerCase() },
    make("h2", {}, make("span", { class: `badge ${fn.label}` }, fn.label.toUpperCase()), make("code", {}, fn.path),
      fn.path === `/${fn.id}` ? null : make("code", { class: "id" }, fn.id)),
    operation.summary && operation.summary !== fn.id ? make("p", {}, operation.summary) : null,
    operation.description ? make("p", { class: fn.error ? "warning" : null }, operation.description) : null,
    ...(rows.length ? [make("h3", {}, "Parameters"), make("table", { class: "fields" }, make("tbody", {}, ...rows))] : []),
    ...(content ? schemaView(fn.kind === "job" ? "Input" : `Body · ${content[0]}`, content[1].schema) : []),
    ...(output && output["application/json"] ? schemaView(fn.stream ? "Output · streamed" : "Output", output["application/json"].schema) : []),
    fn.method ? tryIt(fn, parameters, content) : null);
}

function control(name, schema, media, required) {
  const isFile = resolve(schema).format === "binary";
  const start = example(schema);
  const text = start === null || start === "" ? "" : typeof start === "string" ? start : JSON.stringify(start);
  return make("label", {}, make("span", { class: required ? "must" : null }, name),
    make("input", { name, "data-in": media, type: isFile ? "file" : "text", class: "mono", value: isFile ? null : text, required, autocomplete: "off" }));
}

function bodyControls([media, { schema }]) {
  if (FORMS.includes(media)) {
    const form = resolve(schema);
    return Object.entries(form.properties || {}).map(([name, field]) => control(name, field, "form", (form.required || []).includes(name)));
  }
  if (media !== "application/json") return [make("label", {}, `Body (${media})`, make("input", { type: "file", "data-in": "file" }))];
  const text = JSON.stringify(example(schema), null, 2);
  return [make("label", {}, "Body (JSON)", make("textarea", { "data-in": "json", spellcheck: "false", rows: Math.min(18, text.split("\n").length + 1) }, text))];
}

function modes(fn) {
  const texts = { wait: "wait for it", async: "respond at once, ask for its status", stream: "stream its events" };
  return make("fieldset", {}, make("legend", {}, "How"), ...Object.entries(texts).map(([value, text]) =>
    make("label", {}, make("input", { type: "radio", name: "mode", value, checked: value === (fn.stream ? "stream" : "wait") }), text)));
}

function tryIt(fn, parameters, content) {
  const places = parameters.filter((p) => p.in !== "cookie").map((p) => control(p.name, p.schema || {}, p.in, p.required));
  const stop = make("button", { type: "button", class: "plain", hidden: true }, "Cancel");
  const outcome = make("p", { class: "outcome", role: "status" });
  const answer = make("div", { class: "answer" });
  const form = make("form", { submit: (event) => { event.preventDefault(); send(fn, { form, stop, outcome, answer, media: content && content[0] }); } },
    ...places, ...(content ? bodyControls(content) : []), fn.kind === "job" ? modes(fn) : null,
    make("div", { class: "actions" }, make("button", { type: "submit" }, "Send"), stop), outcome, answer);
  form.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(); });
  return make("details", { class: "try" }, make("summary", {}, "Try it"), form);
}

/** The form as a request. Throws a SyntaxError for a body that is no JSON. */
function request(fn, { form, media }) {
  const query = new URLSearchParams();
  const init = { method: fn.method, headers: byId("key").value ? { authorization: `Bearer ${byId("key").value}` } : {} };
  const fields = media === FORMS[0] ? new URLSearchParams() : new FormData();
  let path = fn.path;
  for (const input of form.querySelectorAll("[data-in]")) {
    const [place, name, value] = [input.dataset.in, input.name, input.type === "file" ? input.files[0] : input.value];
    if (place === "path") path = path.replace(`{${name}}`, encodeURIComponent(value).replaceAll("%2F", "/"));
    else if (place === "json") { init.body = JSON.stringify(JSON.parse(value || "{}")); init.headers["content-type"] = media; }
    else if (!value) continue;
    else if (place === "query") listed(value).forEach((item) => query.append(name, item));
    else if (place === "header") init.headers[name] = value;
    else if (place === "form") fields.append(name, value);
    else { init.body = value; init.headers["content-type"] = media; }
  }
  if (FORMS.includes(media)) init.body = fields;
  return { url: query.size ? `${path}?${query}` : path, init };
}

function listed(text) {
  try { const value = JSON.parse(text); return Array.isArray(value) ? value : [text]; } catch { return [text]; }
}

async function send(fn, view) {
  const mode = fn.kind === "job" ? new FormData(view.form).get("mode") : "wait";
  const began = performance.now();
  const control = new AbortController();
  const tell = (text, tone = "") => { view.outcome.textContent = `${text} · ${Math.round(performance.now() - began)} ms`; view.outcome.className = `outcome ${tone}`; };
  view.answer.replaceChildren();
  view.stop.onclick = () => control.abort();
  view.stop.hidden = false;
  try {
    const { url, init } = request(fn, view);
    if (mode === "async") init.headers.prefer = "respond-async";
    if (mode === "stream") init.headers.accept = "text/event-stream";
    tell("sent");
    const response = await fetch(url, { ...init, signal: control.signal });
    const kind = (response.headers.get("content-type") || "").split(";")[0];
    if (response.ok && kind === "text/event-stream") await readEvents(response, view, tell);
    else if (response.status === 202 && mode === "async") await poll(response, init.headers, view, tell, control.signal);
    else { await show(response, kind, view.answer); tell(`${response.status} ${response.statusText}`, response.ok ? "good" : "bad"); }
  } catch (error) {
    tell(error.name === "AbortError" ? "stopped" : error instanceof SyntaxError ? `the body is no JSON: ${error.message}` : String(error.message || error), "bad");
  } finally {
    view.stop.hidden = true;
  }
}

async function show(response, kind, answer) {
  if (kind.startsWith("image/")) answer.append(make("img", { src: URL.createObjectURL(await response.blob()), alt: "the answer" }));
  else if (!kind || kind.startsWith("text/") || kind.endsWith("json") || kind.endsWith("xml")) answer.append(make("pre", { tabindex: "0" }, pretty(await response.text())));
  else { const blob = await response.blob(); answer.append(make("a", { href: URL.createObjectURL(blob), download: "answer" }, `${blob.size} bytes of ${kind}`)); }
}

/** JSON with its indents, and the traceback of an error as lines. */
function pretty(text) {
  try {
    const value = JSON.parse(text);
    const { traceback, ...error } = (value && value.error) || {};
    return traceback ? `${JSON.stringify({ ...value, error }, null, 2)}\n\n${traceback.trim()}` : JSON.stringify(value, null, 2);
  } catch { return text; }
}

/** Ask for the status of an accepted job until it has ended; the button now cancels the job itself. */
async function poll(response, headers, view, tell, signal) {
  const place = response.headers.get("location");
  const page = make("pre", { tabindex: "0" });
  view.answer.append(page);
  let job = await response.json();
  view.stop.onclick = () => fetch(place.replace("/status/", "/cancel/"), { method: "POST", headers: { ...headers, "content-type": "application/json" }, body: "{}" });
  for (let pause = 50; pause === 50 || !ENDED.includes(job.status); pause = Math.min(2000, pause * 1.5)) {
    tell(`${job.status} · job ${job.id}`);
    await new Promise((done) => setTimeout(done, pause));
    const answer = await fetch(place, { headers: headers.authorization ? { authorization: headers.authorization } : {}, signal });
    if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText} for ${place}`);
    job = await answer.json();
    page.textContent = JSON.stringify(job, null, 2);
  }
  tell(job.status, job.status === "COMPLETED" ? "good" : "bad");
}

/** Server-sent events as they come: one line each. */
async function readEvents(response, view, tell) {
  const page = make("pre", { tabindex: "0" });
  view.answer.append(page);
  let [buffer, last] = ["", "open"];
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    const blocks = (buffer + piece.value).replaceAll("\r\n", "\n").split("\n\n");
    buffer = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n");
      const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
      if (!data) continue;
      last = (lines.find((line) => line.startsWith("event:")) || "event: message").slice(6).trim();
      page.append(`${last.padEnd(10)} ${data}\n`);
      tell(last);
    }
    page.scrollTop = page.scrollHeight;
  }
  tell(last, ["failed", "cancelled", "timed_out"].includes(last) ? "bad" : "good");
}

function render() {
  const all = functions();
  const groups = Map.groupBy ? Map.groupBy(all, (fn) => fn.endpoint) : all.reduce((map, fn) => map.set(fn.endpoint, [...(map.get(fn.endpoint) || []), fn]), new Map());
  byId("count").textContent = `${groups.size} endpoint${groups.size === 1 ? "" : "s"}, ${all.length} function${all.length === 1 ? "" : "s"}`;
  for (const [endpoint, members] of groups) {
    byId("nav").append(make("section", {}, make("h2", {}, endpoint), make("ul", {}, ...members.map((fn) =>
      make("li", { "data-for": fn.id }, make("a", { href: `#${encodeURIComponent(anchor(fn.id))}` }, make("span", { class: `badge ${fn.label}` }, fn.label.toUpperCase()), fn.path))))));
  }
  byId("main").replaceChildren(...all.map(card), ...(all.length ? [] : [make("p", {}, "There is no function yet: write endpoints/hello/handler.py.")]));
  if ((doc.security || []).length && !doc.security.some((choice) => !Object.keys(choice).length)) byId("key").placeholder = "needed for all but public functions";
  const target = location.hash && byId(decodeURIComponent(location.hash.slice(1)));
  if (target) target.scrollIntoView();
}

function filter() {
  const words = byId("find").value.toLowerCase().split(/\s+/);
  for (const article of document.querySelectorAll("article")) article.hidden = !words.every((word) => article.dataset.text.includes(word));
  for (const entry of document.querySelectorAll("nav li")) entry.hidden = byId(anchor(entry.dataset.for)).hidden;
  for (const section of document.querySelectorAll("nav section")) section.hidden = !section.querySelector("li:not([hidden])");
}

async function main() {
  byId("find").addEventListener("input", filter);
  try {
    const response = await fetch("openapi.json");
    if (!response.ok) throw new Error(`openapi.json: ${response.status} ${response.statusText}`);
    doc = await response.json();
    render();
  } catch (error) {
    byId("loading").textContent = `The document could not be loaded: ${error.message}`;
  }
  document.body.dataset.state = "ready";
}
main();
