// The operator's page: reads /v1 with a key, and follows /v1/events for what to read again.

import { drawBars, drawLine } from "/charts.js";

const KEY = "flasc.key";
const PAGE = 200;
// Several events in a row, as when a cohort reports at once, cause one read.
const GATHER_MS = 250;
// Assignments make no event of their own, so the open round is read again now and then.
const REFRESH_MS = 10_000;
const RECONNECT_MS = 2_000;

const STATE_LOOKS = {
  RUNNING: "busy", COLLECTING: "busy", CLOSING: "busy", FOLDING: "busy",
  PUBLISHED: "good", EVALUATED: "good", COMPLETED: "good",
  PAUSED: "warn", ABORTED: "bad", CANCELLED: "bad",
};

const byId = (id) => document.getElementById(id);
const NOTHING = { tasks: [], task: null, totals: null, rounds: new Map(), more: false };
const view = { ...NOTHING };
let session = null;

class Unauthorized extends Error {}

// --- reading ---------------------------------------------------------------------------------

async function request(path, headers = {}) {
  const { key, abort } = session;
  const all = { Authorization: `Bearer ${key}`, ...headers };
  const response = await fetch(path, { headers: all, signal: abort.signal, cache: "no-store" });
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({ detail: response.statusText }));
  if (response.status === 401) throw new Unauthorized(problem.detail);
  throw new Error(`${problem.reason ?? response.status}: ${problem.detail}`);
}

const read = async (path) => (await request(path)).json();

async function loadTasks() {
  const [tasks, devices] = await Promise.all([
    read(`/v1/tasks?limit=${PAGE}`), read("/v1/devices/counts"),
  ]);
  view.tasks = tasks.items;
  drawDevices(devices);
  const wanted = taskOf(location.hash);
  const chosen = view.tasks.find((task) => task.name === wanted) ?? view.tasks[0] ?? null;
  const changed = chosen?.id !== view.task?.id;
  view.task = chosen;
  drawTasks();
  if (changed) return loadRounds();
  const totals = chosen && (await readTotals(chosen));
  if (view.task?.id !== chosen?.id) return;
  view.totals = totals;
  drawTask();
}

const readTotals = (task) => read(`/v1/tasks/${task.id}/totals`);

function taskOf(hash) {
  try {
    return decodeURIComponent(hash.slice(1));
  } catch {
    return "";
  }
}

async function loadRounds() {
  const task = view.task;
  const [page, totals] = task
    ? await Promise.all([read(`/v1/tasks/${task.id}/rounds?limit=${PAGE}`), readTotals(task)])
    : [null, null];
  if (view.task?.id !== task?.id) return;
  view.totals = totals;
  view.rounds = new Map((page?.items ?? []).map((round) => [round.id, round]));
  view.more = Boolean(page?.next_cursor);
  drawTask();
}

async function loadRound(id) {
  const round = await read(`/v1/rounds/${id}`);
  if (round.task_id === view.task?.id) view.rounds.set(round.id, round);
}

// --- following -------------------------------------------------------------------------------

async function* events() {
  const headers = session.lastEvent === null ? {} : { "Last-Event-ID": session.lastEvent };
  const response = await request("/v1/events", headers);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const frames = (rest + value).split("\n\n");
      rest = frames.pop();
      for (const frame of frames) {
        const fields = Object.fromEntries(
          frame.split("\n").map((line) => [line.split(":", 1)[0], line.slice(line.indexOf(":") + 2)]),
        );
        if (fields.id) session.lastEvent = fields.id;
        yield fields.data ? JSON.parse(fields.data) : null;
      }
    }
  } finally {
    // Also where whoever follows gave up: browsers have few connections to a host.
    reader.cancel().catch(() => {});
  }
}

async function follow(mine) {
  while (session === mine) {
    try {
      let first = true;
      for await (const event of events()) {
        if (session !== mine) return;
        drawLive(true);
        // Only now: whatever changes during this read comes as an event.
        if (first) await Promise.all([loadTasks(), mine.loaded && loadRounds()]);
        first = false;
        mine.loaded = true;
        showProblem("");
        if (event) noteChange(event);
      }
    } catch (error) {
      if (session !== mine) return;
      if (error instanceof Unauthorized) return leave(error.message);
      showProblem(error.message);
    }
    drawLive(false);
    await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS));
  }
}

const pending = { rounds: new Set(), timer: 0 };

function noteChange(event) {
  if (event.round_id && event.task_id === view.task?.id) pending.rounds.add(event.round_id);
  pending.timer ||= setTimeout(readChanges, GATHER_MS);
}

async function readChanges() {
  const rounds = [...pending.rounds];
  Object.assign(pending, { rounds: new Set(), timer: 0 });
  await guarded(async () => {
    await Promise.all(rounds.map(loadRound));
    await loadTasks();
  });
}

async function guarded(work) {
  const mine = session;
  try {
    await work();
    showProblem("");
  } catch (error) {
    if (session !== mine) return;
    if (error instanceof Unauthorized) leave(error.message);
    else showProblem(error.message);
  }
}

// --- drawing: tables and tiles ---------------------------------------------------------------

function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.filter((child) => child !== null));
  return node;
}

const none = "–";
const percent = (x) => (x === null || x === undefined ? none : `${(100 * x).toFixed(1)} %`);
const decimal = (x, digits = 3) => (x === null || x === undefined ? none : x.toFixed(digits));
const whole = (n) => n.toLocaleString("en").replaceAll(",", "\u202f");
const factor = (x) => (x ? `${x.toFixed(x < 10 ? 1 : 0)}×` : none);

function bytes(n) {
  if (!n) return none;
  const unit = Math.min(4, Math.floor(Math.log10(n) / 3));
  const scaled = n / 1000 ** unit;
  return `${scaled.toFixed(unit && scaled < 100 ? 1 : 0)} ${["B", "kB", "MB", "GB", "TB"][unit]}`;
}

function duration(seconds) {
  if (seconds === null) return none;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const [minutes, hours] = [Math.floor(seconds / 60), Math.floor(seconds / 3600)];
  return hours ? `${hours} h ${minutes % 60} min` : `${minutes} min ${Math.floor(seconds % 60)} s`;
}

function time(iso) {
  if (!iso) return none;
  const at = new Date(iso);
  const today = at.toDateString() === new Date().toDateString();
  const date = today ? {} : { month: "short", day: "numeric" };
  const text = at.toLocaleString("en-GB", { ...date, hour: "2-digit", minute: "2-digit", second: "2-digit" });
  return el("time", { datetime: iso, title: at.toString() }, text);
}

const badge = (state) => el("span", { class: `state ${STATE_LOOKS[state] ?? ""}` }, state);
const cell = (content, look = "") => el("td", look ? { class: look } : {}, content);
const number = (content) => cell(content, "number");
const meter = (value, max) =>
  el("span", { class: "meter" }, el("progress", { value, max, "aria-hidden": "true" }), `${value} / ${max}`);

function drawDevices({ enrolled, seen_last_hour: seen }) {
  byId("devices").textContent = `${whole(enrolled)} devices, ${whole(seen)} seen in the last hour`;
}

function drawTasks() {
  byId("tasks").replaceChildren(...view.tasks.map((task) => {
    const link = el("a", { href: `#${encodeURIComponent(task.name)}` }, task.name);
    const latest = task.latest_round;
    return el("tr", { "aria-current": String(task.id === view.task?.id) },
      el("th", { scope: "row" }, link),
      cell(badge(task.state)),
      cell(meter(task.latest_version, task.rounds_wanted)),
      cell(latest ? el("span", {}, `${latest.number} `, badge(latest.state)) : none),
      cell(task.base_model), number(whole(task.dimension)), cell(time(task.created_at)));
  }));
  byId("no-tasks").hidden = view.tasks.length > 0;
}

function drawTask() {
  const task = view.task;
  // The rounds and totals of a task that was just chosen are still on their way.
  byId("task").hidden = !task || !view.totals;
  if (byId("task").hidden) return;
  const rounds = [...view.rounds.values()].sort((a, b) => b.number - a.number);
  byId("task-title").replaceChildren(`${task.name} `, badge(task.state));
  document.title = `${task.name} · FLASC`;
  const curve = evaluations(rounds);
  drawTiles(task, rounds, curve);
  drawLine(byId("accuracy"), curve.map((e) => ({ x: e.version, y: e.accuracy })), {
    format: percent, tick: (y) => `${Math.round(100 * y)} %`, low: 0,
  });
  drawLine(byId("loss"), curve.map((e) => ({ x: e.version, y: e.loss })), { format: decimal });
  drawBars(byId("bytes"), [...rounds].reverse().filter((round) => round.bytes.dense_float32.down).map(bar), {
    label: "Payload bytes of each round before dense float32", format: bytes,
  });
  drawRefusals();
  drawTiers();
  byId("rounds").replaceChildren(...rounds.map(drawRound));
  byId("rounds-note").textContent = view.more ? `the last ${rounds.length}` : "";
}

const denseOf = (moved, type) => moved[`dense_${type}`].down + moved[`dense_${type}`].up;

const wastedOf = (moved) => moved.wasted_down + moved.wasted_up;

const bar = ({ number: x, bytes: moved }) => {
  const [sent, dense] = [moved.down + moved.up, denseOf(moved, "float32")];
  return { x, front: sent, back: dense, title: `round ${x}: ${bytes(sent)}, dense ${bytes(dense)}` };
};

// Devices score a version before they train from it: one point per version, the newest round's.
function evaluations(rounds) {
  const points = new Map();
  for (const round of [...rounds].reverse()) {
    if (round.evaluation?.total) points.set(round.base_version, round.evaluation);
  }
  return [...points].map(([version, e]) => ({ version, ...e })).sort((a, b) => a.version - b.version);
}

function drawTiles(task, rounds, curve) {
  const [first, last] = [curve[0], curve.at(-1)];
  const { bytes: moved, updates_accepted: updates } = view.totals;
  const sent = moved.down + moved.up;
  const [dense, half] = [denseOf(moved, "float32"), denseOf(moved, "bfloat16")];
  const points = curve.length > 1 ? 100 * (last.accuracy - first.accuracy) : null;
  const sign = points < 0 ? "−" : "+";
  const gain = points === null ? "" : `${sign}${Math.abs(points).toFixed(1)} points since v${first.version}`;
  const tiles = [
    ["Accuracy", percent(last?.accuracy), last ? gain || `version ${last.version}` : "no device has reported yet"],
    ["Loss", decimal(last?.loss), last ? `version ${last.version}, ${whole(last.total)} examples` : ""],
    ["Versions", `${task.latest_version} of ${task.rounds_wanted}`, `${task.latest_round?.number ?? 0} rounds`],
    ["Payload", bytes(sent), dense ? `instead of ${bytes(dense)} dense` : ""],
    ["Wasted", bytes(wastedOf(moved)), "stragglers, refusals, repeats"],
    ["Saving", factor(sent && dense / sent), sent ? `dense float32; ${factor(half / sent)} bfloat16` : "against dense float32"],
    ["Updates", whole(updates), `${whole(refusedOf(view.totals))} requests refused`],
  ];
  const reserved = rounds.filter((round) => round.privacy && round.state !== "ABORTED");
  if (reserved.length > 0) {
    const newest = reserved.reduce((one, other) => (other.number > one.number ? other : one));
    const note = `once round ${newest.number} is published${newest.privacy.is_last ? ", the last" : ""}`;
    tiles.push(["Privacy", `ε ${decimal(newest.privacy.epsilon)}`, note]);
  }
  byId("tiles").replaceChildren(...tiles.map(([name, value, note]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, value, el("small", {}, note || "\u00a0")))));
}

const refusedOf = ({ refused }) => Object.values(refused).reduce((a, b) => a + b, 0);

function drawRound(round) {
  const { devices, bytes: moved } = round;
  const state = round.abort_reason ? el("span", {}, badge(round.state), ` ${round.abort_reason}`) : badge(round.state);
  const took = round.collecting_seconds === null ? null : round.collecting_seconds + (round.publishing_seconds ?? 0);
  const refused = refusedOf(round);
  const row = el("tr", {},
    el("th", { scope: "row", class: "number" }, String(round.number)), cell(state),
    cell(meter(devices.reported, round.goal)), number(String(devices.assigned)),
    number(percent(round.evaluation?.accuracy)), number(decimal(round.training.loss_mean)),
    number(bytes(moved.down)), number(bytes(moved.up)), number(bytes(wastedOf(moved))),
    number(factor(moved.dense_float32.saving_factor)),
    number(refused ? whole(refused) : none), number(duration(took)), cell(time(round.opened_at)));
  row.dataset.round = round.number;
  return row;
}

function drawRefusals() {
  const ranked = Object.entries(view.totals.refused).sort((a, b) => b[1] - a[1]);
  const most = ranked[0]?.[1] ?? 1;
  byId("refusals").replaceChildren(...ranked.map(([reason, n]) =>
    el("li", {}, el("code", {}, reason), el("span", {}, whole(n)),
      el("progress", { value: n, max: most, "aria-hidden": "true" }))));
  byId("no-refusals").hidden = ranked.length > 0;
}

// Where no device has a tier the tiles say it all.
function drawTiers() {
  const tiers = view.totals.tiers;
  byId("tiers-section").hidden = !tiers.some(({ tier }) => tier);
  byId("tiers").replaceChildren(...tiers.map(drawTier));
}

function drawTier({ tier, assigned, accepted, bytes: moved, latest_evaluation: latest }) {
  return el("tr", {},
    el("th", { scope: "row" }, tier || "(none)"), number(whole(assigned)), number(whole(accepted)),
    number(percent(latest?.accuracy)), number(latest ? String(latest.version) : none),
    number(bytes(moved.down)), number(bytes(moved.up)), number(bytes(wastedOf(moved))),
    number(factor(moved.dense_float32.saving_factor)));
}

// --- entering and leaving --------------------------------------------------------------------

function drawLive(on) {
  byId("live").dataset.state = on ? "on" : "off";
  byId("live").textContent = on ? "live" : "reconnecting";
}

function showProblem(message) {
  byId("problem").textContent = message;
  byId("problem").hidden = !message;
}

function show(entered) {
  byId("entrance").hidden = entered;
  for (const id of ["board", "devices", "live", "leave"]) byId(id).hidden = !entered;
}

function enter(key) {
  session = { key, abort: new AbortController(), lastEvent: null, loaded: false };
  sessionStorage.setItem(KEY, key);
  show(true);
  follow(session);
}

function leave(message = "") {
  session?.abort.abort();
  session = null;
  sessionStorage.removeItem(KEY);
  Object.assign(view, NOTHING, { rounds: new Map() });
  byId("key-problem").textContent = message;
  byId("key").value = "";
  show(false);
  byId("key").focus();
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  enter(byId("key").value.trim());
});
byId("leave").addEventListener("click", () => leave());
addEventListener("hashchange", () => session && guarded(loadTasks));
new ResizeObserver(() => session && drawTask()).observe(byId("board"));
setInterval(() => {
  const open = view.task?.latest_round;
  if (!session || document.hidden || !open) return;
  guarded(() => loadRound(open.id).then(loadTasks));
}, REFRESH_MS);

if (sessionStorage.getItem(KEY)) enter(sessionStorage.getItem(KEY));
else leave();
