// The live page: shows events as they happen, as trees of what caused what.

const STREAM = "/events/stream";
const KEPT_EVENTS = 500; // whole trees are dropped, the oldest first
const KEPT_EARLY = 500; // emissions whose calls may wait for their event
const KEPT_WAITING = 5000; // messages: as many as 500 events with 9 calls each
const TROUBLE_AFTER = 3000; // ms; a stream ends after 1 s, so a healthy one opens more often
const FRAME_BUDGET = 15; // ms to read messages, and to draw, so that a burst does not block a click
const STATES = {
  connecting: "Connecting",
  live: "Live",
  lost: "Reconnecting",
  refused: "Not allowed",
};

const part = (id) => document.getElementById(id);
const trees = new Map(); // tree by the id of its root, oldest first
const entries = new Map(); // entry by the id of its event
const early = new Map(); // calls by the id of an event that has not come yet
const changed = new Set(); // entries to draw
const names = new Set(); // of events, as the select offers them
let waiting = []; // messages that came since the last frame, or while paused
let paused = false;
let scheduled = false;

// What is kept ---------------------------------------------------------------------------

function keep({ position, message }) {
  if (message.kind === "event") keepEvent(message);
  else if (message.kind === "call") keepCall(position, message);
}

function keepEvent(event) {
  if (entries.has(event.id)) return; // sent again after a reconnection
  if (!trees.has(event.root)) {
    trees.set(event.root, { entries: new Set(), list: null, lost: new Map() });
  }
  const tree = trees.get(event.root);
  const entry = { event, tree, calls: new Map(), failures: 0, cause: null, causes: new Set() };
  // What an event causes ends before it does, so it has come before it.
  for (const other of tree.entries) {
    if (other.event.cause === event.id) link(entry, other);
    if (event.cause === other.event.id) link(other, entry);
  }
  tree.entries.add(entry);
  entries.set(event.id, entry);
  changed.add(entry);
  for (const [position, call] of early.get(event.id) ?? []) keepCall(position, call);
  early.delete(event.id);
  while (entries.size > KEPT_EVENTS) drop(trees.keys().next().value);
}

function keepCall(position, call) {
  const entry = entries.get(call.of);
  if (!entry) {
    early.set(call.of, (early.get(call.of) ?? new Map()).set(position, call));
    if (early.size > KEPT_EARLY) early.delete(early.keys().next().value);
  } else if (!entry.calls.has(position)) {
    entry.calls.set(position, call);
    if (call.failure) entry.failures += 1;
    changed.add(entry);
  }
}

function link(cause, entry) {
  entry.cause = cause;
  cause.causes.add(entry);
  changed.add(entry);
}

function drop(root) {
  const tree = trees.get(root);
  trees.delete(root);
  for (const entry of tree.entries) {
    entries.delete(entry.event.id);
    changed.delete(entry);
  }
  tree.list?.parentNode.remove();
}

// What is drawn --------------------------------------------------------------------------

function schedule() {
  if (scheduled) return;
  scheduled = true;
  // A hidden page has no frames, but its title tells of failures.
  if (document.hidden) setTimeout(draw, 100);
  else requestAnimationFrame(draw);
}

function draw() {
  scheduled = false;
  let end = performance.now() + FRAME_BUDGET;
  while (!paused && waiting.length && performance.now() < end) keep(waiting.shift());
  end = performance.now() + FRAME_BUDGET;
  const touched = new Set();
  for (const entry of changed) {
    drawEntry(entry);
    touched.add(entry.tree);
    if (performance.now() > end) break;
  }
  touched.forEach(filterTree);
  drawCounts();
  if (changed.size || (!paused && waiting.length)) schedule();
}

function drawEntry(entry) {
  changed.delete(entry);
  if (entry.cause && !entry.cause.parts) drawEntry(entry.cause);
  entry.parts ??= makeEntry(entry.event);
  const { item, handlers, failed } = entry.parts;
  const home = homeOf(entry);
  if (item.parentNode !== home) home.append(item);
  const calls = [...entry.calls.values()];
  const drawn = entry.parts.calls?.childElementCount ?? 0;
  const more = calls.slice(drawn).map(makeCall);
  if (more.length) listIn(entry.parts, "calls").append(...more);
  handlers.textContent = countOfHandlers(calls.length, entry.event.handlers);
  failed.textContent = `✕ ${entry.failures} failed`;
  failed.hidden = !entry.failures;
}

function homeOf({ cause, event, tree }) {
  if (cause) return listIn(cause.parts, "caused");
  return event.cause ? listOfLost(tree, event.cause) : listOfTree(tree);
}

function countOfHandlers(ended, all) {
  if (!ended && !all) return "no handlers";
  const count = ended < all ? `${ended} of ${all}` : String(ended);
  return `${count} ${count === "1" ? "handler" : "handlers"}`;
}

function listOfTree(tree) {
  if (!tree.list) {
    tree.list = make("ul", "entries");
    const item = make("li", "tree");
    item.append(tree.list);
    part("trees").prepend(item);
  }
  return tree.list;
}

function listOfLost(tree, cause) {
  if (!tree.lost.has(cause)) {
    const item = make("li", "lost");
    const list = make("ul", "caused");
    // An event is noted when it ends, after what it caused.
    item.append(make("p", "", "Caused by an event that is no longer shown, or has not ended"), list);
    listOfTree(tree).append(item);
    tree.lost.set(cause, list);
  }
  return tree.lost.get(cause);
}

function listIn(parts, kind) {
  if (!parts[kind]) {
    parts[kind] = make("ul", kind);
    // Handlers stand before what they caused, whichever came first.
    if (kind === "calls" && parts.caused) parts.caused.before(parts.calls);
    else parts.details.append(parts[kind]);
  }
  return parts[kind];
}

function makeEntry(event) {
  const item = make("li", "entry");
  const fields = Object.entries(event.fields ?? {});
  const isFolding = event.handlers > 0 || fields.length > 0;
  const details = make(isFolding ? "details" : "div");
  if (isFolding) details.open = true;
  const time = make("time", "at", clock(event.at));
  time.dateTime = new Date(event.at * 1000).toISOString();
  const failed = make("span", "failed");
  const handlers = make("span", "handlers");
  const process = make("span", "process", `process ${event.process}`);
  const took = make("span", "took", duration(event.took));
  const name = make("span", "name", event.event);
  const row = make(isFolding ? "summary" : "div", "row");
  row.append(time, name, failed, handlers, process, took);
  details.append(row);
  if (fields.length) {
    const line = make("p", "fields");
    for (const [key, value] of fields) {
      const pair = make("span", "pair", `${key}=`);
      pair.append(make("b", "", value));
      line.append(pair, " ");
    }
    details.append(line);
  }
  item.append(details);
  return { item, details, handlers, failed, calls: null, caused: null };
}

function makeCall(call) {
  const item = make("li", call.failure ? "call has-failed" : "call");
  const handler = make("span", "handler");
  handler.title = call.handler;
  const path = call.handler.split(".");
  const last = path.pop();
  const module = make("span", "module"); // which a narrow screen has no room for
  for (const name of path) module.append(`${name}.`, make("wbr"));
  handler.append(module, make("b", "", last));
  item.append(handler);
  if (call.failure) item.append(make("span", "failed", `✕ ${call.failure}`));
  item.append(make("span", "took", duration(call.took)));
  return item;
}

function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

function clock(seconds) {
  const at = new Date(seconds * 1000);
  const two = (number) => String(number).padStart(2, "0");
  const milliseconds = String(at.getMilliseconds()).padStart(3, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${milliseconds}`;
}

function duration(seconds) {
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${Number((seconds * 1e3).toPrecision(3))} ms`;
  return `${seconds.toFixed(2)} s`;
}

function drawCounts() {
  let failures = 0;
  let shown = 0;
  for (const entry of entries.values()) failures += entry.failures;
  for (const tree of trees.values()) if (tree.list && !tree.list.parentNode.hidden) shown += 1;
  const isEvent = ({ message }) => message.kind === "event";
  part("waiting").textContent = `${waiting.filter(isEvent).length} waiting`;
  part("waiting").hidden = !paused;
  part("events-count").textContent = count(entries.size, "event");
  part("failures-count").textContent = (failures ? "✕ " : "") + count(failures, "failure");
  part("failures-count").classList.toggle("failed", failures > 0);
  part("empty").hidden = shown > 0 || changed.size > 0;
  part("empty").textContent = entries.size
    ? "No event passes the filters."
    : "No events yet. Use the application in another window, and they appear here.";
  document.title = `${failures ? `(${failures}) ` : ""}Events · Accounts`;
  for (const { event } of entries.values()) offerName(event.event);
}

function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

function offerName(name) {
  if (names.has(name)) return;
  names.add(name);
  const select = part("name");
  const after = [...select.options].slice(1).find((option) => option.value > name);
  select.add(new Option(name, name), after);
}

// What passes the filters ----------------------------------------------------------------

function filterTree(tree) {
  const text = part("text").value.trim().toLowerCase();
  const name = part("name").value;
  const onlyFailures = part("only-failures").checked;
  const hasText = (value) => value.toLowerCase().includes(text);
  const passes = ({ event, calls, failures }) =>
    (!name || event.event === name) &&
    (!onlyFailures || failures > 0) &&
    (hasText(event.event) || [...calls.values()].some((call) => hasText(call.handler)));
  // An event stays with what it caused, so that a failure shows where it came from.
  const show = (entry) => {
    if (!entry.parts) return false;
    const shown = [...entry.causes].map(show).includes(true) || passes(entry);
    entry.parts.item.hidden = !shown;
    return shown;
  };
  const tops = [...tree.entries].filter((entry) => !entry.cause);
  if (tree.list) tree.list.parentNode.hidden = !tops.map(show).includes(true);
}

function filterAll() {
  for (const tree of trees.values()) filterTree(tree);
  schedule();
}

// The address has the filters, for a reload and for whoever is sent a link.
function readAddress() {
  const asked = new URLSearchParams(location.search);
  const name = asked.get("event") ?? "";
  if (name) offerName(name);
  part("text").value = asked.get("text") ?? "";
  part("name").value = name;
  part("only-failures").checked = asked.has("failures");
  filterAll();
}

function writeAddress() {
  const chosen = {
    text: part("text").value.trim(),
    event: part("name").value,
    failures: part("only-failures").checked ? "only" : "",
  };
  const address = new URL(location);
  address.search = new URLSearchParams(Object.entries(chosen).filter(([, value]) => value));
  history.replaceState(null, "", address); // no step of its own: Back leaves the page
}

for (const id of ["text", "name", "only-failures"]) {
  part(id).addEventListener("input", () => {
    filterAll();
    writeAddress();
  });
}
addEventListener("popstate", readAddress);

part("pause").addEventListener("click", () => {
  paused = !paused;
  part("pause").textContent = paused ? "Resume" : "Pause";
  tellState();
  schedule();
});

part("clear").addEventListener("click", () => {
  [...trees.keys()].forEach(drop);
  early.clear();
  waiting = [];
  schedule();
});

// The answer would be this page anew, with nothing in it of what was cleared or paused.
part("break").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  fetch(submitted.target.action, { method: "POST", redirect: "manual" }).catch(() => {});
});

// The connection -------------------------------------------------------------------------

let openedAt = Date.now();
let connection = "connecting";

function connect() {
  const source = new EventSource(STREAM);
  source.onopen = () => {
    openedAt = Date.now();
    setConnection("live");
  };
  source.onmessage = ({ lastEventId, data }) => {
    const kept = waiting.push({ position: lastEventId, message: JSON.parse(data) });
    if (kept > KEPT_WAITING) waiting.shift();
    schedule();
  };
  // A browser connects again by itself, unless the answer was an error; it does not say which.
  source.onerror = async () => {
    if (source.readyState !== EventSource.CLOSED) return;
    const isRefused = await asksToSignIn();
    if (isRefused) setConnection("refused");
    else if (connection === "refused") setConnection("lost");
    setTimeout(connect, isRefused ? 5000 : 1000);
  };
}

async function asksToSignIn() {
  const controller = new AbortController();
  try {
    return (await fetch(STREAM, { signal: controller.signal })).status === 403;
  } catch {
    return false; // the server is away
  } finally {
    controller.abort();
  }
}

function setConnection(state) {
  connection = state;
  tellState();
}

function tellState() {
  const isLive = connection === "live";
  const trouble = STATES[connection];
  let text = paused ? "Paused" : trouble;
  if (paused && !isLive) text += `; ${trouble.toLowerCase()}`;
  if (part("state").textContent === text) return; // or a screen reader says it again
  part("state").textContent = text;
  part("state").parentNode.dataset.state = paused && isLive ? "paused" : connection;
  part("sign-in").hidden = connection !== "refused";
}

setInterval(() => {
  if (connection !== "refused" && Date.now() - openedAt > TROUBLE_AFTER) setConnection("lost");
}, 500);

readAddress();
connect();
