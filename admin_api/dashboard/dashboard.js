// The operator's page: reads /v1 with a key, and follows /v1/events for what to read again.

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
const view = { tasks: [], task: null, rounds: new Map(), more: false };
let session = null;

class Unauthorized extends Error {}

// --- reading ---------------------------------------------------------------------------------

async function request(path, headers = {}) {
  const { key, signal } = session;
  const response = await fetch(path, {
    headers: { Authorization: `Bearer ${key}`, ...headers }, signal, cache: "no-store",
  });
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
  const wanted = decodeURIComponent(location.hash.slice(1));
  const chosen = view.tasks.find((task) => task.name === wanted) ?? view.tasks[0] ?? null;
  const changed = chosen?.id !== view.task?.id;
  view.task = chosen;
  drawTasks();
  if (changed) await loadRounds();
  else drawTask();
}

async function loadRounds() {
  const task = view.task;
  const page = task && (await read(`/v1/tasks/${task.id}/rounds?limit=${PAGE}`));
  if (view.task?.id !== task?.id) return;
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
}

async function follow(mine) {
  while (session === mine) {
    try {
      let first = true;
      for await (const event of events()) {
        if (session !== mine) return;
        drawLive(true);
        // Only now: whatever changes during this read comes as an event.
        if (first) await Promise.all([loadTasks(), mine.lastLoaded && loadRounds()]);
        first = false;
        mine.lastLoaded = true;
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

const pending = { rounds: new Set(), tasks: false, timer: 0 };

function noteChange(event) {
  pending.tasks = true;
  if (event.round_id && event.task_id === view.task?.id) pending.rounds.add(event.round_id);
  pending.timer ||= setTimeout(readChanges, GATHER_MS);
}

async function readChanges() {
  const rounds = [...pending.rounds];
  Object.assign(pending, { rounds: new Set(), tasks: false, timer: 0 });
  await guarded(async () => {
    await Promise.all(rounds.map(loadRound));
    await loadTasks();
  });
}

async function guarded(work) {
  const mine = session;
  try {
    await work();
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
  byId("task").hidden = !task;
  if (!task) return;
  const rounds = [...view.rounds.values()].sort((a, b) => b.number - a.number);
  byId("task-title").replaceChildren(`${task.name} `, badge(task.state));
  document.title = `${task.name} · FLASC`;
  const curve = evaluations(rounds);
  drawTiles(task, rounds, curve);
  drawLine(byId("accuracy"), curve.map((e) => [e.version, e.accuracy]), percent, [0, null]);
  drawLine(byId("loss"), curve.map((e) => [e.version, e.loss]), decimal, [null, null]);
  drawBytes(byId("bytes"), [...rounds].reverse().filter((round) => round.bytes.dense_down));
  drawRefusals(rounds);
  byId("rounds").replaceChildren(...rounds.map(drawRound));
  byId("rounds-note").textContent = view.more ? `the last ${rounds.length}` : "";
}

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
  const sum = (pick) => rounds.reduce((total, round) => total + pick(round), 0);
  const sent = sum((round) => round.bytes.down + round.bytes.up);
  const dense = sum((round) => round.bytes.dense_down + round.bytes.dense_up);
  const points = curve.length > 1 ? 100 * (last.accuracy - first.accuracy) : null;
  const gain = points === null ? "" : `${points < 0 ? "−" : "+"}${Math.abs(points).toFixed(1)} points since version ${first.version}`;
  const tiles = [
    ["Accuracy", percent(last?.accuracy), last ? gain || `version ${last.version}` : "no device has reported yet"],
    ["Loss", decimal(last?.loss), last ? `version ${last.version}, ${whole(last.total)} examples` : ""],
    ["Versions", `${task.latest_version} of ${task.rounds_wanted}`, `${rounds.length}${view.more ? "+" : ""} rounds`],
    ["Payload", bytes(sent), dense ? `instead of ${bytes(dense)} dense` : ""],
    ["Saving", factor(sent && dense / sent), "against dense float32, both ways"],
    ["Updates", whole(sum((round) => round.devices.accepted)), `${whole(sum(refusedOf))} requests refused`],
  ];
  byId("tiles").replaceChildren(...tiles.map(([name, value, note]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, value, el("small", {}, note || "\u00a0")))));
}

const refusedOf = (round) => Object.values(round.refused).reduce((a, b) => a + b, 0);

function drawRound(round) {
  const { devices, bytes: moved } = round;
  const state = round.abort_reason ? el("span", {}, badge(round.state), ` ${round.abort_reason}`) : badge(round.state);
  const took = round.collecting_seconds === null ? null : round.collecting_seconds + (round.publishing_seconds ?? 0);
  const refused = refusedOf(round);
  const row = el("tr", {},
    el("th", { scope: "row", class: "number" }, String(round.number)), cell(state),
    cell(meter(devices.reported, round.goal)), number(String(devices.assigned)),
    number(percent(round.evaluation?.accuracy)), number(decimal(round.training.loss_mean)),
    number(bytes(moved.down)), number(bytes(moved.up)), number(factor(moved.saving_factor)),
    number(refused ? whole(refused) : none), number(duration(took)), cell(time(round.opened_at)));
  row.dataset.round = round.number;
  return row;
}

function drawRefusals(rounds) {
  const totals = new Map();
  for (const round of rounds) {
    for (const [reason, n] of Object.entries(round.refused)) totals.set(reason, (totals.get(reason) ?? 0) + n);
  }
  const ranked = [...totals].sort((a, b) => b[1] - a[1]);
  const most = ranked[0]?.[1] ?? 1;
  byId("refusals").replaceChildren(...ranked.map(([reason, n]) =>
    el("li", {}, el("code", {}, reason), el("span", {}, whole(n)),
      el("progress", { value: n, max: most, "aria-hidden": "true" }))));
  byId("no-refusals").hidden = ranked.length > 0;
}

// --- drawing: charts -------------------------------------------------------------------------

const BOX = { left: 52, right: 14, top: 14, bottom: 24 };

function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function niceStep(span, count) {
  const raw = span / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  return power * [1, 2, 5, 10].find((m) => m * power >= raw);
}

// Axes over [low, high]; returns the canvas and the two scales.
function axes(target, label, { low, high, format, firstX, lastX, padX = 0 }) {
  const [width, height] = [Math.max(260, target.clientWidth), 200];
  const canvas = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const step = niceStep(high - low || 1, 4);
  const [floor, ceiling] = [Math.floor(low / step + 1e-9) * step, Math.ceil(high / step - 1e-9) * step || step];
  const y = (v) => height - BOX.bottom - ((v - floor) / (ceiling - floor || 1)) * (height - BOX.top - BOX.bottom);
  const inner = width - BOX.left - BOX.right - 2 * padX;
  const x = (v) => BOX.left + padX + (lastX === firstX ? inner / 2 : ((v - firstX) / (lastX - firstX)) * inner);
  for (let tick = floor; tick <= ceiling + step / 2; tick += step) {
    canvas.append(
      svg("line", { class: "grid", x1: BOX.left, x2: width - BOX.right, y1: y(tick), y2: y(tick) }),
      svg("text", { x: BOX.left - 8, y: y(tick) + 4, "text-anchor": "end" }, format(tick, step)));
  }
  const every = Math.max(1, niceStep(lastX - firstX, 8));
  for (let tick = Math.ceil(firstX / every) * every; tick <= lastX; tick += every) {
    canvas.append(svg("text", { x: x(tick), y: height - 6, "text-anchor": "middle" }, String(tick)));
  }
  return { canvas, x, y, floor, inner };
}

const emptyChart = (target) => target.replaceChildren(el("p", { class: "empty" }, "Nothing reported yet."));

function drawLine(target, points, format, [least, most]) {
  if (!points.length) return emptyChart(target);
  const values = points.map(([, value]) => value);
  const tick = (v, step) => (format === percent ? `${Math.round(100 * v)} %` : v.toFixed(step < 0.1 ? 2 : 1));
  const { canvas, x, y } = axes(target, `From ${format(values[0])} to ${format(values.at(-1))}`, {
    low: least ?? Math.min(...values), high: most ?? Math.max(...values), format: tick,
    firstX: points[0][0], lastX: points.at(-1)[0], padX: 10,
  });
  canvas.append(svg("polyline", { class: "line", points: points.map(([v, a]) => `${x(v)},${y(a)}`).join(" ") }));
  for (const [version, value] of points) {
    const title = svg("title", {}, `version ${version}: ${format(value)}`);
    canvas.append(svg("circle", { class: "dot", cx: x(version), cy: y(value), r: points.length > 60 ? 2.5 : 4 }, title));
  }
  target.replaceChildren(canvas);
}

function drawBytes(target, rounds) {
  if (!rounds.length) return emptyChart(target);
  const dense = (round) => round.bytes.dense_down + round.bytes.dense_up;
  const sent = (round) => round.bytes.down + round.bytes.up;
  const [first, last] = [rounds[0].number, rounds.at(-1).number];
  const { canvas, x, y, floor, inner } = axes(target, "Payload bytes of each round beside dense float32", {
    low: 0, high: Math.max(...rounds.map(dense), ...rounds.map(sent)), format: (v) => (v ? bytes(v) : "0"),
    firstX: first, lastX: last, padX: 24,
  });
  const wide = Math.min(36, Math.max(2, (0.7 * inner) / Math.max(1, last - first)));
  for (const round of rounds) {
    const title = svg("title", {}, `round ${round.number}: ${bytes(sent(round))}, dense ${bytes(dense(round))}`);
    const bar = (look, value) => svg("rect", {
      class: look, x: x(round.number) - wide / 2, width: wide, y: y(value), height: Math.max(0, y(floor) - y(value)), rx: 1.5,
    });
    canvas.append(svg("g", {}, title, bar("dense", dense(round)), bar("sent", sent(round))));
  }
  target.replaceChildren(canvas);
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
  const abort = new AbortController();
  session = { key, abort, signal: abort.signal, lastEvent: null, lastLoaded: false };
  sessionStorage.setItem(KEY, key);
  show(true);
  follow(session);
}

function leave(message = "") {
  session?.abort.abort();
  session = null;
  sessionStorage.removeItem(KEY);
  Object.assign(view, { tasks: [], task: null, rounds: new Map(), more: false });
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

const kept = sessionStorage.getItem(KEY);
if (kept) enter(kept);
else leave();
