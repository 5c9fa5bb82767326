"use strict";

// Fills the page from openapi.json and sends what is typed to /invocations. Text from the model is only ever set as text.

const get = (id) => document.getElementById(id);
const NUMBERS = new Set(["integer", "long", "float", "double"]);
let signature = {};
let byRow = true;

function headers(more) {
  const token = get("token").value.trim();
  return { ...more, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
}

async function start() {
  const answer = await fetch("/openapi.json", { headers: headers({}) });
  if (answer.status === 401) {
    get("token-row").hidden = false;
    get("about").textContent = "This server asks for a token.";
    get("token").addEventListener("change", start, { once: true });
    return;
  }
  if (!answer.ok) {
    get("about").textContent = `The model cannot be described now (${answer.status}).`;
    return;
  }
  const told = await answer.json();
  const mine = told["x-mlcli"];
  signature = mine.signature || {};
  document.title = told.info.title;
  get("name").textContent = told.info.title;
  get("about").textContent = told.info.description;
  fill("columns", (signature.inputs || []).map((item) => [item.name ?? "–", kind(item), item.required === false ? "no" : "yes"]));
  fill("outputs", (signature.outputs || []).map((item) => [item.name ?? "predictions", kind(item)]));
  fill("params", (signature.params || []).map((item) => [item.name, kind(item), JSON.stringify(item.default ?? null)]));
  get("params-part").hidden = !(signature.params || []).length;
  fill("paths", Object.entries(told.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, what]) => [method.toUpperCase(), path, what.summary])));
  get("body").value = JSON.stringify(mine.example ?? made(), null, 2);
  makeFields(mine.example);
  choose(simple());
}

function kind(item) {
  if (item.type === "tensor") {
    return `${item["tensor-spec"].dtype} [${item["tensor-spec"].shape.map((length) => (length < 0 ? "any" : length)).join(", ")}]`;
  }
  return item.type;
}

function fill(id, rows) {
  const body = get(id).tBodies[0];
  body.replaceChildren(...rows.map((cells) => {
    const row = document.createElement("tr");
    row.append(...cells.map((text) => {
      const cell = document.createElement("td");
      cell.textContent = String(text);
      return cell;
    }));
    return row;
  }));
  if (!rows.length) {
    const cell = body.insertRow().insertCell();
    cell.colSpan = 3;
    cell.textContent = "The model does not say.";
  }
}

// A form for one row is possible where every column has a name and a plain type.
function simple() {
  const inputs = signature.inputs || [];
  return inputs.length > 0 && inputs.length <= 200 &&
    inputs.every((item) => item.name != null && !["tensor", "array", "object", "map", "any"].includes(item.type));
}

function firstRow(example) {
  const split = example && example.dataframe_split;
  return split && split.data.length ? Object.fromEntries(split.columns.map((name, place) => [name, split.data[0][place]])) : {};
}

function makeFields(example) {
  const values = firstRow(example);
  get("row").replaceChildren(...(simple() ? signature.inputs : []).map((item, place) => {
    const part = document.createElement("div");
    const label = document.createElement("label");
    const hint = document.createElement("span");
    hint.className = "kind";
    hint.textContent = ` ${item.type}${item.required === false ? ", optional" : ""}`;
    label.append(String(item.name), hint);
    let field = document.createElement("input");
    if (item.type === "boolean") {
      field = document.createElement("select");
      field.append(...["true", "false"].map((word) => new Option(word, word)));
    } else if (NUMBERS.has(item.type)) {
      field.inputMode = "decimal";
    }
    field.id = `field-${place}`;
    label.htmlFor = field.id;
    const given = values[item.name];
    field.value = given == null ? (item.type === "boolean" ? "true" : "") : String(given);
    field.autocomplete = "off";
    field.addEventListener("input", showCurl);
    part.append(label, field);
    return part;
  }));
}

function typed(item, text) {
  if (text === "") return null;
  if (item.type === "boolean") return text === "true";
  if (NUMBERS.has(item.type)) {
    const number = Number(text);
    return Number.isFinite(number) ? number : text; // the model says what is wrong with it
  }
  return text;
}

function made() {
  const inputs = signature.inputs || [];
  if (inputs.length && inputs[0].type === "tensor") return { inputs: [] };
  return { dataframe_split: { columns: inputs.map((item) => item.name), data: [inputs.map(() => 0)] } };
}

function rowBody() {
  const values = signature.inputs.map((item, place) => typed(item, get(`field-${place}`).value));
  return JSON.stringify({ dataframe_split: { columns: signature.inputs.map((item) => item.name), data: [values] } }, null, 2);
}

function body() {
  return byRow ? rowBody() : get("body").value;
}

function choose(row) {
  byRow = row && simple();
  get("row").hidden = !byRow;
  get("json").hidden = byRow;
  get("tab-row").setAttribute("aria-selected", String(byRow));
  get("tab-json").setAttribute("aria-selected", String(!byRow));
  get("tab-row").hidden = !simple();
  showCurl();
}

function showCurl() {
  let text = body();
  try { text = JSON.stringify(JSON.parse(text)); } catch { /* what is typed is not complete yet */ }
  const token = get("token").value ? ` -H 'Authorization: Bearer TOKEN'` : "";
  get("curl").textContent =
    `curl ${location.origin}/invocations -H 'Content-Type: application/json'${token} -d '${text.replaceAll("'", "'\\''")}'`;
}

async function send(event) {
  event.preventDefault();
  const answer = get("answer");
  get("send").disabled = true;
  get("took").textContent = "…";
  const begun = performance.now();
  try {
    const got = await fetch("/invocations", {
      method: "POST", headers: headers({ "Content-Type": "application/json" }), body: body(),
    });
    const text = await got.text();
    get("took").textContent = `${got.status}, ${(performance.now() - begun).toFixed(1)} ms`;
    let shown = text;
    try {
      const told = JSON.parse(text);
      shown = got.ok ? JSON.stringify(told, null, 2) : `${told.error_code}: ${told.message}`;
    } catch { /* shown as it came */ }
    answer.textContent = shown;
    answer.className = got.ok ? "good" : "bad";
  } catch {
    get("took").textContent = "";
    answer.textContent = "The server does not answer.";
    answer.className = "bad";
  }
  answer.hidden = false;
  get("send").disabled = false;
}

get("form").addEventListener("submit", send);
get("tab-row").addEventListener("click", () => choose(true));
get("tab-json").addEventListener("click", () => { get("body").value = byRow ? rowBody() : get("body").value; choose(false); });
get("body").addEventListener("input", showCurl);
start();
