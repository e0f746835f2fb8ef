// A line of a log as an element: a step's head, an error, a group, or what a program printed.
import { paint, plain } from "./ansi.js";
import { icon, make, mark as drawn } from "./dom.js";
import { moment, span } from "./time.js";

export const GROUP = /^(?:##\[group\]|::group::)/;
export const END = /^(?:##\[endgroup\]|::endgroup::)/;
const MARKERS = [
  [/^##\[error\]/, "error"], [/^##\[warning\]/, "warning"], [/^##\[(?:notice|debug|command)\]/, "remark"], [GROUP, "group"], [END, "end"],
];

export const stepName = (mark) => plain(mark).replace(/^Main /, "");

// The head of a step: what it is called, how it ended and how long it took.
export const stepHead = (step, { closed, live, toggle }) => {
  const word = step.conclusion || (live ? "running" : "cancelled");
  const took = make("span", { class: "took" }, step.conclusion ? span(step.duration_ms) : "");
  if (!step.conclusion && live) took.dataset.since = step.begun_at;
  const button = make("button", { type: "button", class: "fold", "aria-expanded": String(!closed) },
    icon(closed ? "open" : "down"), drawn(word), make("span", { class: "name text" }, stepName(step.name)), took);
  button.addEventListener("click", toggle);
  return make("div", { class: "row head " + word, id: "L" + step.first }, button);
};

// Lines that came as text get the colours that they were printed with.
export const paintLines = (place) => {
  for (const text of place.querySelectorAll("[data-raw]")) {
    text.replaceChildren();
    paint(text, text.dataset.raw);
  }
};

export const lineRow = (number, line, { link, here, search, closed, fold }) => {
  const element = make("div", { class: "row " + (line?.stream || ""), id: "L" + number });
  element.append(link);
  if (here) element.classList.add("here");
  if (!line) return element;
  element.append(make("span", { class: "at" }, moment(line.time_ms)));
  if (line.within) element.append(make("span", { class: "within" }, "[" + plain(line.within) + "]"));
  const [marker, name] = MARKERS.find(([marker]) => marker.test(line.text)) || [null, null];
  if (name) element.classList.add(name);
  if (name === "group") {
    const button = make("button", { class: "fold", type: "button", "aria-expanded": String(!closed) }, icon(closed ? "open" : "down"));
    button.setAttribute("aria-label", (closed ? "Unfold " : "Fold ") + plain(line.text).replace(GROUP, ""));
    button.addEventListener("click", fold);
    element.append(button);
  }
  const text = make("span", { class: "text" });
  const shown = (marker ? line.text.replace(marker, "") : line.text) + (line.ended ? ": " + line.ended[0] + " after " + span(line.ended[1]) : "");
  const wanted = search.toLowerCase();
  const flat = plain(shown);
  const hit = wanted ? flat.toLowerCase().indexOf(wanted) : -1;
  if (hit >= 0 && flat.length === flat.toLowerCase().length) {
    element.classList.add("hit");
    text.append(flat.slice(0, hit), make("mark", {}, flat.slice(hit, hit + wanted.length)), flat.slice(hit + wanted.length));
  } else {
    paint(text, shown);
  }
  element.append(text);
  return element;
};
