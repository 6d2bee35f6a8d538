"use strict";
(() => {
// The page asks for one thing, draws it, and changes in the document only what has changed.
const QUICK = 2000, CALM = 5000, HIDDEN = 30000, PATIENCE = 10000;
const SVG = "http://www.w3.org/2000/svg";
const MANY = 4, TENANTS = 60;
const $ = id => document.getElementById(id);
const body = id => document.querySelector(`#${id} .body`);

/* ---- making and changing elements ---- */

// h("p.soft", {title: "x"}, "text", child): no markup is ever parsed.
function h(what, ...rest) {
  const [tag, ...classes] = what.split(".");
  const drawn = ["svg", "g", "rect", "line", "path", "text", "circle", "title"].includes(tag);
  const element = drawn ? document.createElementNS(SVG, tag) : document.createElement(tag);
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const part of rest.flat(9)) {
    if (part == null || part === false) continue;
    if (part instanceof Node || typeof part !== "object") { element.append(part instanceof Node ? part : String(part)); continue; }
    for (const [name, value] of Object.entries(part)) if (value != null && value !== false) element.setAttribute(name, value);
  }
  return element;
}

// Makes `old` like `fresh`, touching only what differs: focus, selection and open parts stay.
function become(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || old.dataset?.key !== fresh.dataset?.key) { old.replaceWith(fresh); return; }
  if (old.nodeType === Node.TEXT_NODE) { if (old.data !== fresh.data) old.data = fresh.data; return; }
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  fill(old, [...fresh.childNodes]);
}

function fill(parent, fresh) {
  const keyed = new Map([...parent.children].filter(child => child.dataset?.key).map(child => [child.dataset.key, child]));
  fresh.forEach((node, n) => {
    let now = parent.childNodes[n];
    const mine = node.dataset?.key && keyed.get(node.dataset.key);
    if (mine && mine !== now) { parent.insertBefore(mine, now ?? null); now = mine; }
    if (now) become(now, node); else parent.append(node);
  });
  while (parent.childNodes.length > fresh.length) parent.lastChild.remove();
}

const show = (id, ...nodes) => fill(body(id), nodes.flat(9).filter(Boolean));
const say = (element, text) => { if (element.textContent !== text) element.textContent = text; };

/* ---- words, numbers, times ---- */

let ahead = 0; // By how much the daemon's clock is ahead of this one, in milliseconds.
const now = () => Date.now() + ahead;
const number = n => n.toLocaleString("en");
const many = (n, one, more = one + "s") => `${number(n)} ${n === 1 ? one : more}`;
const plain = word => word.replaceAll("_", " ");
const sum = numbers => numbers.reduce((all, n) => all + n, 0);

function clock(at, seconds) {
  const time = new Date(at), today = new Date(now()).toDateString() === time.toDateString();
  const parts = { hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...(seconds && { second: "2-digit" }) };
  return time.toLocaleString("en-GB", today ? parts : { weekday: "short", day: "numeric", month: "short", ...parts });
}

function span(ms) {
  const minutes = Math.round(Math.abs(ms) / 60000), hours = Math.floor(minutes / 60), days = Math.floor(hours / 24);
  if (minutes < 1) return "less than a minute";
  if (hours < 1) return `${minutes} min`;
  if (days < 2) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return hours % 24 ? `${days} d ${hours % 24} h` : `${days} d`;
}

const apart = at => { const ms = Date.parse(at) - now(); return ms >= 0 ? `in ${span(ms)}` : `${span(ms)} ago`; };
const moment = at => h("time", { datetime: at, title: new Date(at).toString() }, clock(at));
const distance = at => h("time", { datetime: at, "data-apart": "" }, apart(at));
const both = at => [moment(at), h("span.soft", " (", distance(at), ")")];
// Times within sentences of the daemon: in this zone, the one that it names in its own too.
const STAMP = /\d{4}-\d\d-\d\dT[\d:.]+Z/g, OWN = /(\d{4}-\d\d-\d\d )?\d\d:\d\d(:\d\d)?( ?[+-]\d\d:?\d\d)?/;
const local = text => text.replace(STAMP, at => clock(at, true));
const until = (text, at) => at ? text.replace(OWN, clock(at, true)) : text;

/* ---- drawings ---- */

// A bar that is `used` of `limit` full; the numbers stand beside it in words.
function meter(name, used, limit) {
  const part = limit ? Math.min(used / limit, 1) : 0;
  return h("svg.meter", { role: "meter", "aria-label": name, "aria-valuemin": 0, "aria-valuemax": limit, "aria-valuenow": Math.min(used, limit), "aria-valuetext": `${used} of ${limit}`, "data-full": part >= 1 },
    h("rect", { width: `${(part * 100).toFixed(2)}%`, height: "100%", rx: 4 }));
}

const nice = most => { const step = 10 ** Math.floor(Math.log10(Math.max(most, 1))); return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map(n => n * step).find(n => n >= most) ?? most; };
const fixed = n => n.toFixed(1);

// Calls of the last hour: above, by the minute; below, in the hour that had passed by then. Each against its limit.
function calls(minutes, budget, width) {
  const shown = minutes.slice(-60), hours = shown.map((_, n) => sum(minutes.slice(n + 1, n + 61)));
  hours[59] = budget.hour.used;
  const left = 4, right = width - 4, slot = (right - left) / 60, parts = [];
  const band = (top, height, limit, most, name) => {
    const scale = Math.max(limit, most) * 1.08 || 1, y = n => top + height - height * n / scale;
    parts.push(h("line.axis", { x1: left, x2: right, y1: top + height, y2: top + height }),
      h("line.limit", { x1: left, x2: right, y1: fixed(y(limit)), y2: fixed(y(limit)) }),
      h("text.name", { x: right, y: fixed(y(limit) - 5), "text-anchor": "end" }, `${number(limit)} ${name}`));
    return y;
  };
  const a = band(16, 74, budget.minute.limit, Math.max(...shown), "a minute");
  parts.push(h("path.bars", { d: shown.map((n, at) => n ? `M${fixed(left + at * slot)} ${90}V${fixed(a(n))}h${fixed(Math.max(slot - 1.5, 1))}V90z` : "").join("") || "M0 0" }));
  const b = band(122, 74, budget.hour.limit, Math.max(...hours), "an hour");
  const line = hours.map((n, at) => `${fixed(left + (at + .5) * slot)} ${fixed(b(n))}`).join("L");
  parts.push(h("path.area", { d: `M${fixed(left + slot / 2)} 196L${line}V196z` }), h("path.curve", { d: `M${line}` }));
  for (const ago of width < 420 ? [60, 30, 0] : [60, 45, 30, 15, 0]) parts.push(h("text", { x: fixed(right - ago * slot), y: 212, "text-anchor": ago === 60 ? "start" : ago ? "middle" : "end" }, ago ? `−${ago} min` : "now"));
  const most = Math.max(...shown), label = `Scan calls of the last hour: at most ${most} in a minute, limit ${budget.minute.limit}; ${budget.hour.used} in the hour until now, limit ${budget.hour.limit}.`;
  return h("svg.plot", { role: "img", "aria-label": label, viewBox: `0 0 ${width} 216`, height: 216 }, parts);
}

// The queue: as long as it was, and where it is expected to end.
function queue(points, left, eta, width, tall) {
  const at = now(), end = eta ? Math.max(Date.parse(eta), at) : at;
  const all = [...points.filter(([when]) => when < at), [at, left]], begin = Math.min(all[0][0], at - 60000);
  const x = when => 4 + (width - 8) * (when - begin) / (end - begin || 1);
  const most = Math.max(...all.map(([, n]) => n), 1), top = nice(most), floor = tall - 20, y = n => floor - (floor - 26) * n / top;
  const line = all.map(([when, n]) => `${fixed(x(when))} ${fixed(y(n))}`).join("L"), here = [fixed(x(at)), fixed(y(left))];
  const parts = [
    h("line.axis", { x1: 4, x2: width - 4, y1: floor, y2: floor }), h("line.axis", { x1: 4, x2: width - 4, y1: y(top), y2: y(top) }),
    h("text", { x: width - 4, y: y(top) - 5, "text-anchor": "end" }, number(top)),
    h("path.area", { d: `M${fixed(x(all[0][0]))} ${floor}L${line}V${floor}z` }), h("path.curve", { d: `M${line}` }),
    eta && h("path.ahead", { d: `M${here.join(" ")}L${fixed(x(end))} ${floor}` }), h("circle.end", { cx: here[0], cy: here[1], r: 4 }),
    h("text", { x: 4, y: tall - 4 }, clock(begin)),
    eta && x(at) > 70 && x(at) < width - 120 && h("text", { x: here[0], y: tall - 4, "text-anchor": "middle" }, "now"),
    h("text", { x: width - 4, y: tall - 4, "text-anchor": "end" }, eta ? `about ${clock(end)}` : "now")];
  const label = `Machines that are not sent yet: ${all[0][1]} at ${clock(begin)}, ${left} now${eta ? `; all sent at about ${clock(eta)}` : ""}.`;
  return h("svg.plot", { role: "img", "aria-label": label, viewBox: `0 0 ${width} ${tall}`, height: tall }, parts);
}

/* ---- the parts of the page ---- */

const SENT = ["succeeded"], LOST = ["failed", "timed_out", "cancelled", "skipped", "rejected", "needs_review"];

function standing(tenant) {
  const { jobs } = tenant, unsent = jobs.queued + jobs.sending;
  if (tenant.disabled) return ["bad", "Disabled"];
  if (tenant.paused) return ["warn", "Paused"];
  if (tenant.sign_in_fails_since) return ["bad", "Sign-in fails"];
  if (/reconcile|permission|does not answer|throttled|database|404/.test(tenant.waiting_for)) return ["bad", "Held up"];
  if (/release/.test(tenant.waiting_for)) return ["warn", "Held"];
  if (unsent && /^(nothing|the answer)/.test(tenant.waiting_for)) return ["busy", "Sending"];
  if (unsent) return ["busy", "Waiting"];
  return jobs.accepted ? ["good", "Following"] : ["quiet", "Idle"];
}

// As few of an id's digits as name it alone, whole groups of them.
const short = (id, told) => [8, 13, 18, 23].map(n => id.slice(0, n)).find(part => told.sweeps.every(other => other.id === id || !other.id.startsWith(part))) ?? id;

const badge = ([kind, word]) => h("span.badge", { "data-kind": kind }, h("span.mark", { "aria-hidden": "true" }), word);

function waits(tenant) {
  if (tenant.paused) {
    return h("p.wait", tenant.paused_since && ["since ", moment(tenant.paused_since)], tenant.paused_reason && [": ", h("b", tenant.paused_reason)],
      tenant.paused_until ? ["; until ", both(tenant.paused_until)] : ["; until ", h("code", "sweepd resume")]);
  }
  const what = tenant.waiting_for === "nothing" ? "Waits for nothing" : ["Waits for ", h("b", local(until(tenant.waiting_for, tenant.waiting_until)))];
  return h("p.wait", what, tenant.waiting_until && [", ", distance(tenant.waiting_until)]);
}

const fact = (name, value, ...more) => h("div", h("dt", name), h("dd", value, more.length > 0 && [" ", h("small", ...more)]));

function facts(tenant, unsent) {
  const { jobs } = tenant, held = jobs.queued + jobs.sending - unsent, lost = LOST.filter(state => jobs[state]);
  const end = tenant.eta ? [clock(tenant.eta), h("small", " (", distance(tenant.eta), ")")] : tenant.paused && unsent ? h("small", "not while it is paused") : unsent ? h("small", "unknown: ", local(tenant.eta_unknown ?? tenant.waiting_for)) : "–";
  const last = fact("All sent about", end);
  last.setAttribute("class", "wide");
  return h("dl.facts", fact("Queued", number(jobs.queued - Math.max(held, 0))), held > 0 && fact("Held", number(held)), fact("On the wire", number(jobs.sending)), fact("Scanning", number(jobs.accepted)),
    fact("Succeeded", number(sum(SENT.map(state => jobs[state])))),
    fact("Not succeeded", number(sum(lost.map(state => jobs[state])))), last);
}

function gauge(tenant, window) {
  const { used, limit } = tenant.budget.scan[window], others = tenant.foreign.scan[window];
  return h("div.gauge", h("div.row", h("span", `This ${window}`), h("span", h("b", number(used)), ` of ${number(limit)}`)), meter(`Scan calls this ${window}`, used, limit),
    others > 0 && h("p.small.soft", `others with the same registration: about ${number(others)}`));
}

// How wide a chart is: as wide as one stands there, or as one will.
const width = () => document.querySelector("#tenants figure")?.clientWidth || guess();
const guess = () => { const wide = body("tenants").clientWidth - 40; return Math.max(Math.floor(wide > 830 ? (wide - 28) / 2 : wide), 220); };

function tenant(name, told, detail, folded) {
  const room = width(), { unsent, calls: minutes } = detail, busy = minutes.slice(-60).some(n => n) || told.budget.scan.hour.used;
  const head = [h("h3", name), badge(standing(told)), waits(told)];
  const parts = [facts(told, unsent), h("div.two",
    h("figure", h("figcaption", h("b", "Scan calls, last hour")), h("div.gauges", ["minute", "hour"].map(window => gauge(told, window))), busy ? calls(minutes, told.budget.scan, room) : h("p.soft.quiet", "No scan call in the last hour.")),
    h("figure", h("figcaption", h("b", "Queue"), h("span", unsent ? `${many(unsent, "machine")} to be sent` : "empty")), detail.queue.length > 1 && (unsent || busy) ? queue(detail.queue, unsent, told.eta, room, folded || innerWidth < 900 ? 216 : 272) : h("p.soft.quiet", unsent ? "It has not moved since the daemon looks." : "Nothing is waiting to be sent.")))];
  return folded ? h("details.tenant", { "data-key": name }, h("summary", head, unsent > 0 && h("span.soft", `${number(unsent)} to be sent`)), parts) : h("article.tenant", { "data-key": name, "aria-label": name }, h("header", head), parts);
}

const URGENCY = ["bad", "warn", "busy", "good", "quiet"];

function tenants(told) {
  const all = Object.entries(told.tenants).map(([name, tenant]) => [name, tenant, URGENCY.indexOf(standing(tenant)[0])]);
  if (!all.length) return [h("p.none", "No tenant is configured.")];
  const folded = all.length > MANY;
  // Where there are many, whoever is in trouble comes first; a few stay where they are.
  if (folded) all.sort((a, b) => a[2] - b[2] || (a[0] < b[0] ? -1 : 1));
  const shown = all.slice(0, TENANTS).map(([name, tenant_]) => tenant(name, tenant_, told.detail[name] ?? { calls: [], queue: [], failures: [], unsent: 0 }, folded));
  return [...shown, all.length > TENANTS && h("p.none", `And ${many(all.length - TENANTS, "tenant")} more, in less trouble: sweepd status shows them all.`)];
}

// On a narrow screen the rows are no table to the eye; their roles keep them one to a screen reader.
function table(caption, heads, rows) {
  const head = h("tr", { role: "row" }, heads.map(([name, kind]) => h(`th${kind === "n" ? ".n" : ""}`, { scope: "col", role: "columnheader" }, name)));
  const cell = (content, n) => n === 0 ? h("th", { scope: "row", role: "rowheader" }, content)
    : h(`td${heads[n][1] ? "." + heads[n][1] : ""}`, { role: "cell", "data-label": heads[n][0] }, content);
  return h("table.table", { role: "table" }, h("caption", caption), h("thead", { role: "rowgroup" }, head),
    h("tbody", { role: "rowgroup" }, rows.map(([key, cells]) => h("tr", { role: "row", "data-key": key }, cells.map(cell)))));
}

function progress(sweep, told) {
  if (sweep.state === "held") return h("span", h("b", "Held: "), h("code", `sweepd sweep release ${short(sweep.id, told)}`));
  if (sweep.state === "taking") return `being taken, ${many(sweep.total, "machine")} so far`;
  const done = sweep.total - sweep.open;
  return h("div.progress", h("div.row", h("span", `${number(done)} of ${number(sweep.total)}`), h("span.soft", sweep.total ? `${Math.floor(100 * done / sweep.total)} %` : "")), meter(`Progress of ${sweep.name}`, done, sweep.total));
}

function sweeps(told) {
  if (!told.sweeps.length) return [h("p.none", "No sweep is in progress.")];
  const heads = [["Sweep"], ["Tenant"], ["Machines done", "progress"], ["Received", "when"], ["All sent about"]];
  const row = sweep => [sweep.id, [[sweep.name, h("div.small.soft", h("span.id", short(sweep.id, told)), ` · ${sweep.source}`)], sweep.tenant, progress(sweep, told), moment(sweep.received_at), sweep.eta ? both(sweep.eta) : "–"]];
  const more = told.more_sweeps > 0 && h("p.soft.small", `And ${many(told.more_sweeps, "sweep")} more: sweepd sweep list.`);
  return [table("Oldest first. Done are machines whose job is final.", heads, told.sweeps.map(row)), more];
}

function failures(told) {
  const rows = Object.entries(told.detail).flatMap(([name, { failures }]) => failures.map(failure => [name, failure]));
  if (!rows.length) return [h("p.none", "In the last seven days, everything that ended has succeeded.")];
  rows.sort((a, b) => b[1].jobs - a[1].jobs);
  const heads = [["How it ended"], ["Tenant"], ["Jobs", "n"], ["Last", "when"], ["Latest message", "words"]];
  const row = ([name, failure]) => [`${name} ${failure.state} ${failure.reason}`, [
    [plain(failure.state), failure.reason && h("div.small.soft", plain(failure.reason))], name, number(failure.jobs), moment(failure.last_at),
    [failure.message ?? "–", failure.last_machine && h("div.small", h("a", { href: `#machine=${failure.last_machine}`, "aria-label": `Look up machine ${failure.last_machine}` }, h("span.id", failure.last_machine.slice(0, 12) + "…")))]]];
  return [table("Jobs of the last seven days, by reason.", heads, rows.slice(0, 100).map(row))];
}

function notices(told) {
  const { daemon } = told, all = [];
  if (daemon.intake_stopped) all.push(h("p.notice", { "data-kind": "bad" }, h("b", "No file is taken: "), daemon.intake_stopped));
  if (daemon.database_stopped) all.push(h("p.notice", { "data-kind": "bad" }, h("b", "The database takes no writes: "), daemon.database_stopped));
  for (const sweep of told.sweeps) if (sweep.state === "held") all.push(h("p.notice", { "data-kind": "warn" }, h("b", `${sweep.name} is held: `), `${many(sweep.total, "machine")} for ${sweep.tenant}. `, h("code", `sweepd sweep release ${short(sweep.id, told)}`), " lets it go."));
  for (const [name, tenant] of Object.entries(told.tenants)) if (tenant.jobs.needs_review) {
    const recent = told.detail[name]?.failures.some(failure => failure.state === "needs_review");
    if (recent) all.push(h("p.notice", { "data-kind": "warn" }, h("b", `${name}: `), `${many(tenant.jobs.needs_review, "job")} cannot be decided without you. `, h("code", `sweepd job list --tenant ${name} --state needs_review`)));
  }
  return all.slice(0, 8);
}

let last = null, stood = new Map(), names = new Map();

// What a listener should hear of: a tenant that stands otherwise, a sweep that is gone.
function news(told) {
  const words = [];
  for (const [name, tenant] of Object.entries(told.tenants)) {
    const word = standing(tenant)[1].replace(/Sending|Waiting/, "Busy");
    if (stood.has(name) && stood.get(name) !== word) words.push(`${name}: ${word}.`);
    stood.set(name, word);
  }
  const open = new Map(told.sweeps.map(sweep => [sweep.id, sweep.name]));
  if (last && !told.more_sweeps) for (const [id, name] of names) if (!open.has(id)) words.push(`The sweep ${name} is finished.`);
  names = open;
  if (words.length) say($("news"), words.join(" "));
}

function draw(told) {
  fill($("notices"), notices(told));
  const room = width();
  show("tenants", tenants(told));
  if (width() !== room) show("tenants", tenants(told));
  show("sweeps", sweeps(told));
  show("failures", failures(told));
  say($("version"), `Version ${told.daemon.version}.`);
}

/* ---- one machine ---- */

let looked = null;

function jobs(machine) {
  const heads = [["Job"], ["State"], ["Scan"], ["Tries", "n"], ["Asked for", "when"], ["Ended", "when"], ["What came back", "words"]];
  const tried = attempt => h("li", moment(attempt.at), " ", plain(attempt.outcome ?? "on the wire"), attempt.http_status && ` (HTTP ${attempt.http_status})`, attempt.looked_up && `, looked up: ${plain(attempt.looked_up)}`, h("div", h("code", attempt.answer ?? "")));
  const row = job => [job.id, [[`${job.id}`, h("div.small.soft", job.tenant)], [plain(job.state), job.reason && h("div.small.soft", plain(job.reason))], job.scan_type, number(job.attempts), moment(job.created_at), job.finished_at ? moment(job.finished_at) : "–",
    [job.error ?? job.detail, job.blocked_by && h("div", "blocked by ", h("span.id", job.blocked_by.action_id)), job.action_id && h("div", "action ", h("span.id", job.action_id)), job.tries.length > 0 && h("details", h("summary", many(job.tries.length, "call")), h("ol.record", job.tries.map(tried)))]]];
  return table("Its jobs, newest first.", heads, machine.jobs.map(row));
}

function history(machine) {
  const heads = [["Action"], ["What"], ["Status"], ["Whose"], ["Created", "when"], ["Updated", "when"]];
  const row = action => [action.action_id, [h("span.id", action.action_id), [action.type, action.scope && ` (${action.scope})`], [action.status, action.error && h("div.small.soft", action.error)], action.origin, moment(action.created_at), moment(action.updated_at)]];
  const event = told => h("li", { "data-key": told.seq }, moment(told.at), " ", h("b", plain(told.kind)), " ", h("span.small.soft", `${told.tenant}, ${told.seq}`), h("div", h("code", told.body)));
  return [h("h3", machine.name ?? "Machine", " ", h("span.id.soft", machine.machine_id)),
    machine.jobs.length > 0 && jobs(machine),
    machine.actions.length > 0 && [h("h4", "Actions"), table("What Defender was asked to do with it, by whomever; newest first.", heads, machine.actions.map(row))],
    machine.events.length > 0 && [h("h4", "Record"), h("details", { "data-key": "record" }, h("summary", many(machine.events.length, "event")), h("ol.record", machine.events.map(event)))],
    machine.cut && h("p.soft.small", "There is more: ", h("code", `sweepd job show ${machine.machine_id}`))];
}

async function look(quietly) {
  const id = new URLSearchParams(location.hash.slice(1)).get("machine")?.trim().toLowerCase();
  if (!id) return;
  if (!quietly) { $("machine").value = id; say($("answer"), "Looking…"); }
  try {
    if (!/^[0-9a-f]{40}$/.test(id)) throw new Error("A machine id has 40 hexadecimal digits.");
    const answer = await ask(`/api/machine?id=${encodeURIComponent(id)}`);
    if (!answer.ok) throw new Error((await answer.text()).trim());
    const machine = await answer.json(), known = machine.jobs.length + machine.actions.length + machine.events.length;
    looked = machine.jobs.some(job => !job.finished_at) ? id : null;
    show("lookup", known ? history(machine) : []);
    if (!quietly) { say($("answer"), known ? `${many(machine.jobs.length, "job")}, ${many(machine.actions.length, "action")}.` : "sweepd has never heard of this machine."); $("lookup").scrollIntoView(); }
  } catch (error) {
    if (!quietly) { say($("answer"), error instanceof TypeError ? "The daemon does not answer." : error.message); show("lookup"); }
  }
}

$("ask").addEventListener("submit", event => {
  event.preventDefault();
  const hash = `#machine=${encodeURIComponent($("machine").value.trim())}`;
  if (location.hash === hash) look(); else location.hash = hash;
});
window.addEventListener("hashchange", () => look());

/* ---- asking again and again ---- */

const ask = (path, headers) => fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
let tag = null, same = 0, failed = 0, heard = null, timer = 0, asking = false;

function state(kind, word) {
  if ($("daemon").dataset.kind !== kind) $("daemon").dataset.kind = kind;
  say($("word"), word);
  const title = kind === "bad" ? "(!) sweepd" : "sweepd";
  if (document.title !== title) document.title = title;
}

async function poll() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  try {
    const answer = await ask("/api/overview", tag ? { "If-None-Match": tag } : {});
    if (answer.status === 503) throw new Error("The daemon cannot read its database");
    if (!answer.ok && answer.status !== 304) throw new Error(`The daemon answers ${answer.status}`);
    const time = Date.parse(answer.headers.get("sweepd-time"));
    // A small difference is the way here; following it would make times jump.
    if (Math.abs(time - now()) > 1500) ahead = time - Date.now();
    if (answer.status === 304) same += 1;
    else { const told = await answer.json(); tag = answer.headers.get("etag"); same = 0; news(told); draw(told); last = told; if (looked) look(true); }
    failed = 0;
    heard = now();
    state("good", "Live");
    for (const time of document.querySelectorAll("time[data-apart]")) say(time, apart(time.dateTime));
  } catch (error) {
    failed += 1;
    const what = error instanceof TypeError || error.name === "TimeoutError" ? "The daemon does not answer" : error.message;
    state("bad", heard ? `${what} since ${clock(heard, true)}; what you see is from then` : `${what} yet`);
  }
  asking = false;
  timer = setTimeout(poll, document.hidden ? HIDDEN : failed ? Math.min(QUICK * 2 ** (failed - 1), 15000) : same > 5 ? CALM : QUICK);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
let wide = 0;
new ResizeObserver(() => { if (last && width() !== wide) { wide = width(); draw(last); } }).observe(body("tenants"));
poll();
look();
})();
