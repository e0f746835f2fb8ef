// The log of one job: only the lines in sight are on the page, however many there are. Lines are fetched by number. Steps
// are heads that fold.
import { make } from "./dom.js";
import { logBar } from "./log_bar.js";
import { coalesced, freshPage, keepOpen, showTab } from "./fresh.js";
import { folds as folding } from "./log_folds.js";
import { END, GROUP, lineRow, stepHead } from "./log_row.js";
import { follow, json } from "./stream.js";

const ROW = 22; // pixels, as in log.css
const CHUNK = 100; // lines fetched at once
const KEPT = 200; // chunks kept
const TALLEST = 15000000; // pixels that browsers can scroll through
const LATE = 200; // milliseconds that lines are waited for before the view moves
const AROUND = 15; // lines drawn above and below what is in sight
const SHORT = 200; // lines of a log whose steps are all open

const isEnd = (line) => END.test(line.text);

export const liveLog = async (log) => {
  const { run, job, attempt } = log.dataset;
  const base = "/api/runs/" + encodeURIComponent(run);
  const of = "job=" + encodeURIComponent(job) + "&attempt=" + attempt;
  const status = document.getElementById("log-state");
  let total = Number(log.dataset.total);
  let here = Number(log.dataset.here);
  let error = Number(log.dataset.error);
  let complete = !("live" in log.dataset);
  let search = { text: "", lines: [], next: null };
  let wraps = false;
  const folds = folding();
  const chunks = new Map();

  const tall = make("div");
  const rows = make("div", { class: "rows" });
  log.classList.add("live");
  log.replaceChildren(rows, tall);
  document.getElementById("log-pages")?.querySelectorAll("[rel]").forEach((link) => link.remove());

  const shown = () => total - folds.hidden();
  const inSight = () => Math.ceil(log.clientHeight / ROW);
  // Where lines are wrapped, those in sight may be higher than the view: the last one can be scrolled to its top.
  const height = () => Math.min(shown() * ROW + (wraps ? Math.max(0, log.clientHeight - ROW) : 0), TALLEST);
  const scale = () => {
    const room = height() - log.clientHeight;
    const places = shown() * ROW - (wraps ? ROW : log.clientHeight);
    return room > 0 && places > room ? places / room : 1;
  };
  const top = () => (log.scrollTop * scale()) / ROW; // places above the view, with fractions

  const chunk = (number) => {
    let found = chunks.get(number);
    if (found) {
      chunks.delete(number);
      chunks.set(number, found);
      return found;
    }
    found = { lines: null };
    chunks.set(number, found);
    while (chunks.size > KEPT) chunks.delete(chunks.keys().next().value);
    const from = number * CHUNK + 1;
    found.loading = load(from, from + CHUNK - 1).then(
      (lines) => { found.lines = lines; folds.read(lines, isEnd); draw(); return found; },
      () => { chunks.delete(number); status.textContent = "lines could not be fetched; scroll to try again"; return found; });
    return found;
  };
  // An answer may hold fewer lines than were asked for, where they are long.
  const load = async (from, to) => {
    const lines = [];
    while (from <= to) {
      const answer = await json(base + "/lines?" + of + "&from=" + from + "&to=" + to);
      grow(answer);
      if (!answer.lines.length) break;
      lines.push(...answer.lines);
      from = answer.lines[answer.lines.length - 1].number + 1;
    }
    return lines;
  };
  const line = (number) => chunk(Math.floor((number - 1) / CHUNK)).lines?.[(number - 1) % CHUNK];

  const grow = (answer) => {
    complete = answer.complete;
    if (answer.total > total) total = answer.total;
    folds.grow(total);
    status.textContent = total.toLocaleString("en") + (complete ? " lines" : " lines so far");
  };

  // Those that went well are folded, but for what is short or goes on.
  const isFolded = (step) => {
    if (step.conclusion === "failure" || !step.last) return false;
    return total > SHORT || error > 0;
  };
  const loadSteps = async () => {
    const found = await json(base + "/steps?" + of).catch(() => null);
    if (found) folds.set(found.steps, total, isFolded);
  };

  const row = (number) => {
    const step = folds.head(number);
    if (step) {
      const toggle = () => { folds.toggle(number); bar.follow.checked = false; draw(); };
      return stepHead(step, { closed: folds.isClosed(number), live: !complete, toggle });
    }
    const link = make("a", { class: "number", href: "?" + of + "&line=" + number }, String(number));
    link.addEventListener("click", (event) => { event.preventDefault(); mark(number); });
    return lineRow(number, line(number), { link, here: number === here, search: search.text, closed: folds.isClosed(number), fold: () => foldGroup(number) });
  };

  let planned = false;
  const draw = () => {
    if (planned) return;
    planned = true;
    requestAnimationFrame(() => {
      planned = false;
      tall.style.height = height() + "px";
      const sticks = bar.follow.checked;
      if (sticks) log.scrollTop = log.scrollHeight;
      const above = top();
      const end = shown();
      // What follows the end of a wrapped log shows its last lines, however high they are.
      const first = wraps ? Math.max(0, Math.min(Math.floor(above), sticks ? end - inSight() : end - 1)) : Math.max(0, Math.floor(above) - AROUND);
      const last = Math.min(end, Math.max(first, Math.floor(above)) + inSight() + AROUND);
      const focused = document.activeElement?.closest?.("#log .row")?.id;
      const fresh = [];
      for (let place = first + 1; place <= last; place++) {
        const element = row(folds.lineAt(place));
        if (!wraps) element.style.top = log.scrollTop + (place - 1 - above) * ROW + "px";
        fresh.push(element);
      }
      rows.replaceChildren(...fresh);
      rows.style.top = wraps ? log.scrollTop + (sticks ? Math.min(0, log.clientHeight - rows.offsetHeight) : 0) + "px" : "";
      if (focused) document.getElementById(focused)?.querySelector("a, button")?.focus({ preventScroll: true });
    });
  };

  const mark = (number) => {
    here = number;
    history.replaceState(null, "", "?" + of + "&line=" + number);
    draw();
  };
  // Asks for what would be in sight with a line; done when it is there.
  const ask = (number) => {
    const sight = [number - inSight(), number, number + inSight()].filter((one) => one >= 1 && one <= total);
    return Promise.all(sight.map((one) => chunk(Math.floor((one - 1) / CHUNK)).loading));
  };
  // Moves when the lines are there, unless they are late: one picture, and no empty one before it.
  let moves = 0;
  const move = async (number, part) => {
    const mine = ++moves;
    bar.follow.checked = false;
    folds.reveal(number);
    await Promise.race([ask(number), new Promise((done) => setTimeout(done, LATE))]);
    if (mine !== moves) return false;
    tall.style.height = height() + "px";
    log.scrollTop = (Math.max(0, folds.placeOf(number) - 1 - inSight() * part) * ROW) / scale();
    draw();
    return true;
  };
  const show = async (number) => {
    here = number;
    if (await move(number, wraps ? 0.1 : 1 / 3)) mark(number);
  };
  // The error stands low in the view: what led to it stands above.
  const showError = () => { if (error) move(error, wraps ? 0.3 : 0.7); };

  const foldGroup = async (number) => {
    if (folds.isClosed(number)) {
      folds.group(number, 0);
      return draw();
    }
    for (let at = Math.floor(number / CHUNK); at * CHUNK < total; at++) {
      const found = chunk(at);
      await found.loading;
      const end = (found.lines || []).find((one) => one.number > number && (END.test(one.text) || GROUP.test(one.text) || one.stream === "mark"));
      if (!end) continue;
      folds.group(number, END.test(end.text) ? end.number : end.number - 1);
      return draw();
    }
  };

  const look = async (text) => {
    search = { text, lines: [], next: text ? 1 : null };
    await more();
    step(1, here || 1);
  };
  const more = async () => {
    if (search.next === null) return;
    const { text, next } = search;
    const found = await json(base + "/search?" + of + "&from=" + next + "&text=" + encodeURIComponent(text));
    if (search.text !== text) return;
    search.lines.push(...found.lines);
    search.next = found.next;
  };
  const step = async (way, from) => {
    if (!search.text) return draw();
    const pick = () => (way > 0 ? search.lines.find((one) => one >= from) : search.lines.findLast((one) => one <= from));
    while (way > 0 && pick() === undefined && search.next !== null) await more();
    const found = pick() ?? (way > 0 ? search.lines[0] : search.lines.at(-1));
    if (found === undefined) { status.textContent = "“" + search.text + "” is not in this log"; return draw(); }
    status.textContent = "match " + (search.lines.indexOf(found) + 1) + " of " + search.lines.length + (search.next === null ? "" : " or more") + ", line " + found.toLocaleString("en");
    show(found);
  };

  const wrap = (on) => {
    const place = Math.round(top());
    wraps = on;
    log.classList.toggle("wraps", on);
    tall.style.height = height() + "px";
    log.scrollTop = (place * ROW) / scale();
    draw();
  };

  const bar = logBar(document.getElementById("log-bar"), {
    live: !complete,
    follows: !complete && !here,
    search: (text) => { if (text === search.text) step(1, here + 1); else look(text); },
    step: (way) => step(way, here + way),
    expect: (number) => { ask(number); },
    go: (number) => show(Math.min(Math.max(1, number), total)),
    changed: () => draw(),
    wrap: (on) => wrap(on),
    times: (on) => { log.classList.toggle("times", on); },
    fold: (close) => { folds.all(close); bar.follow.checked = false; draw(); },
    error: showError,
  });

  log.classList.toggle("times", bar.times);
  wraps = bar.wraps;
  log.classList.toggle("wraps", wraps);

  log.addEventListener("scroll", () => {
    if (log.scrollTop + log.clientHeight < log.scrollHeight - 2 * ROW) bar.follow.checked = false;
    draw();
  });
  new ResizeObserver(draw).observe(log);

  // New lines: the last chunk is fetched from its end on.
  let busy = false;
  let again = false;
  const catchUp = async () => {
    again = true;
    if (busy) return;
    busy = true;
    while (again) {
      again = false;
      const number = Math.floor(total / CHUNK);
      const last = chunks.get(number);
      const known = last?.lines?.length || 0;
      const from = number * CHUNK + 1 + known;
      const lines = await load(from, from + CHUNK - 1 - known).catch(() => []);
      folds.read(lines, isEnd);
      if (last?.lines) last.lines.push(...lines.filter((one) => one.number > number * CHUNK + last.lines.length));
      else if (lines.length && !last) chunks.set(number, { lines, loading: Promise.resolve() });
      if (lines.length === CHUNK - known) again = true;
      if (complete || lines.some((one) => one.stream === "mark")) await loadSteps();
      draw();
    }
    busy = false;
  };

  // What stands around the log follows the run. A failure that happens in front of somebody who follows is shown.
  const around = coalesced(async () => {
    const page = await freshPage();
    const fresh = page?.getElementById("log");
    if (!fresh) return;
    keepOpen(document.querySelector("aside"), page.querySelector("aside"));
    for (const part of ["aside", ".log-title", ".log-facts"]) document.querySelector(part).replaceWith(page.querySelector(part));
    document.getElementById("job-actions").toggleAttribute("data-live", "runLive" in fresh.dataset);
    document.dispatchEvent(new Event("refreshed"));
    showTab(page);
    const found = Number(fresh.dataset.error);
    if (found === error) return;
    error = found;
    if (bar.follow.checked) showError();
  });
  const changed = () => { around(); if (!complete) catchUp(); };

  await loadSteps();
  if ("runLive" in log.dataset) {
    follow(base + "/logs?format=changes", {
      log: (event) => { if (event.job === job && String(event.attempt) === attempt) catchUp(); },
      run: changed,
      end: changed,
    });
  }
  tall.style.height = height() + "px";
  const target = here || Number(location.hash.replace("#L", "")) || 0;
  if (target) { here = target; show(target); } else showError();
  draw();
};
