// The log of one job: only the lines in sight are on the page, however many there are. Lines are fetched by number.
import { paint, plain } from "./ansi.js";
import { make } from "./dom.js";
import { follow, json } from "./stream.js";
import { moment } from "./time.js";

const ROW = 20; // pixels, as in page.css
const CHUNK = 100; // lines fetched at once
const KEPT = 200; // chunks kept
const TALLEST = 15000000; // pixels that browsers can scroll through
const LATE = 200; // milliseconds that lines are waited for before the view moves
const AROUND = 15; // lines drawn above and below what is in sight

const GROUP = /^(?:##\[group\]|::group::)/;
const END = /^(?:##\[endgroup\]|::endgroup::)/;

export const liveLog = (log) => {
  const { run, job, attempt } = log.dataset;
  const base = "/api/runs/" + encodeURIComponent(run);
  const of = "job=" + encodeURIComponent(job) + "&attempt=" + attempt;
  const status = document.getElementById("log-state");
  let total = Number(log.dataset.total);
  let here = Number(log.dataset.here);
  let complete = !("live" in log.dataset);
  let search = { text: "", lines: [], next: null };
  let folds = []; // hidden lines as [first, last], in order
  const chunks = new Map();

  const tall = make("div");
  const rows = make("div", { class: "rows" });
  log.classList.add("live");
  log.replaceChildren(rows, tall);
  document.getElementById("log-pages").querySelectorAll("[rel]").forEach((link) => link.remove());

  const hidden = () => folds.reduce((sum, [first, last]) => sum + last - first + 1, 0);
  const shown = () => total - hidden();
  // The line at a place among those that are not folded, and back.
  const lineAt = (place) => {
    let line = place;
    for (const [first, last] of folds) if (first <= line) line += last - first + 1;
    return line;
  };
  const placeOf = (line) => {
    let place = line;
    for (const [first, last] of folds) {
      if (last < line) place -= last - first + 1;
      else if (first <= line) return first - (line - place) - 1;
    }
    return place;
  };

  const height = () => Math.min(shown() * ROW, TALLEST);
  const inSight = () => Math.ceil(log.clientHeight / ROW);
  const scale = () => {
    const room = height() - log.clientHeight;
    const places = shown() * ROW - log.clientHeight;
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
      (lines) => { found.lines = lines; draw(); return found; },
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
    status.textContent = total + (complete ? " lines" : " lines so far");
  };

  const row = (number, at) => {
    const found = line(number);
    const element = make("div", { class: "row " + (found?.stream || ""), id: "L" + number });
    element.style.top = at + "px";
    const link = make("a", { class: "number", href: "?" + of + "&line=" + number }, String(number));
    link.addEventListener("click", (event) => { event.preventDefault(); mark(number); });
    element.append(link);
    if (number === here) element.classList.add("here");
    if (!found) return element;
    element.append(make("span", { class: "at" }, moment(found.time_ms)));
    if (found.within) element.append(make("span", { class: "within" }, "[" + plain(found.within) + "]"));
    const text = make("span", { class: "text" });
    if (GROUP.test(found.text)) {
      const folded = folds.some(([first]) => first === number + 1);
      const button = make("button", { class: "fold", type: "button", "aria-expanded": String(!folded) }, folded ? "▸" : "▾");
      button.setAttribute("aria-label", (folded ? "Unfold " : "Fold ") + plain(found.text).replace(GROUP, ""));
      button.addEventListener("click", () => fold(number));
      element.append(button);
    }
    const shownText = found.text.replace(GROUP, "").replace(END, "") + (found.ended ? ": " + found.ended[0] + " after " + found.ended[1] + " ms" : "");
    const wanted = search.text.toLowerCase();
    const flat = plain(shownText);
    const hit = wanted ? flat.toLowerCase().indexOf(wanted) : -1;
    if (hit >= 0 && flat.length === flat.toLowerCase().length) {
      element.classList.add("hit");
      text.append(flat.slice(0, hit), make("mark", {}, flat.slice(hit, hit + wanted.length)), flat.slice(hit + wanted.length));
    } else {
      paint(text, shownText);
    }
    element.append(text);
    return element;
  };

  let planned = false;
  const draw = () => {
    if (planned) return;
    planned = true;
    requestAnimationFrame(() => {
      planned = false;
      tall.style.height = height() + "px";
      if (stick.checked) log.scrollTop = log.scrollHeight;
      const first = Math.max(0, Math.floor(top()) - AROUND);
      const last = Math.min(shown(), Math.ceil(top()) + inSight() + AROUND);
      const focused = document.activeElement?.closest?.(".row")?.id;
      const fresh = [];
      for (let place = first + 1; place <= last; place++) {
        fresh.push(row(lineAt(place), log.scrollTop + (place - 1 - top()) * ROW));
      }
      rows.replaceChildren(...fresh);
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
  const show = async (number) => {
    const mine = ++moves;
    here = number;
    stick.checked = false;
    await Promise.race([ask(number), new Promise((done) => setTimeout(done, LATE))]);
    if (mine !== moves) return;
    folds = folds.filter(([first, last]) => number < first || number > last);
    tall.style.height = height() + "px";
    log.scrollTop = ((placeOf(number) - 1 - inSight() / 3) * ROW) / scale();
    mark(number);
  };

  const fold = async (number) => {
    if (folds.some(([first]) => first === number + 1)) {
      folds = folds.filter(([first]) => first !== number + 1);
      return draw();
    }
    for (let at = Math.floor(number / CHUNK); at * CHUNK < total; at++) {
      const found = chunk(at);
      await found.loading;
      const end = (found.lines || []).find((one) => one.number > number && (END.test(one.text) || GROUP.test(one.text) || one.stream === "mark"));
      if (!end) continue;
      const last = END.test(end.text) ? end.number : end.number - 1;
      if (last > number) folds = [...folds.filter(([f, l]) => l <= number || f > last), [number + 1, last]].sort((a, b) => a[0] - b[0]);
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
    status.textContent = "line " + found + ", match " + (search.lines.indexOf(found) + 1) + " of " + search.lines.length + (search.next === null ? "" : " or more");
    show(found);
  };

  const field = make("input", { type: "search", maxlength: "200", name: "search" });
  const form = make("form", { class: "actions", role: "search" }, make("label", {}, "Search ", field),
    make("button", { type: "submit" }, "Next"), make("button", { type: "button", id: "back" }, "Previous"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (field.value === search.text) step(1, here + 1); else look(field.value);
  });
  form.querySelector("#back").addEventListener("click", () => step(-1, here - 1));
  const goto = make("input", { type: "number", min: "1", name: "line" });
  // What is typed is what is wanted next, as a rule.
  goto.addEventListener("input", () => { if (goto.value >= 1) ask(Number(goto.value)); });
  const jump = make("form", { class: "actions" }, make("label", {}, "Line ", goto), make("button", {}, "Go"));
  jump.addEventListener("submit", (event) => {
    event.preventDefault();
    const number = Math.min(Math.max(1, Number(goto.value) || 1), total);
    show(number);
  });
  const box = (text, checked, changed) => {
    const input = make("input", { type: "checkbox" });
    input.checked = checked;
    input.addEventListener("change", () => changed(input.checked));
    return [make("label", {}, make("span", {}, input, " " + text)), input];
  };
  const [stickLabel, stick] = box("Follow", !complete && !here, draw);
  const [timesLabel] = box("Times", false, (on) => log.classList.toggle("times", on));
  document.getElementById("log-bar").append(form, jump, stickLabel, timesLabel);

  log.addEventListener("scroll", () => {
    if (log.scrollTop + log.clientHeight < log.scrollHeight - 2 * ROW) stick.checked = false;
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
      if (last?.lines) last.lines.push(...lines.filter((one) => one.number > number * CHUNK + last.lines.length));
      else if (lines.length && !last) chunks.set(number, { lines, loading: Promise.resolve() });
      if (lines.length === CHUNK - known) again = true;
      draw();
    }
    busy = false;
  };
  if (!complete) {
    follow(base + "/logs?format=changes", {
      log: (event) => { if (event.job === job && String(event.attempt) === attempt) catchUp(); },
      run: catchUp,
      end: catchUp,
    });
  }

  tall.style.height = height() + "px";
  const target = here || Number(location.hash.replace("#L", "")) || 0;
  if (target) { here = target; show(target); }
  draw();
};
