// The editor of a workflow definition: colours, what the server says of the text, publishing, running. Tab leaves it.
import { make } from "./dom.js";
import { makeRun } from "./make.js";
import { button, key, signed, WAITING } from "./sign.js";
import { coloured } from "./yaml.js";

const KIND = 35417;
const PAUSE = 300;

const ask = async (path, body) => {
  const answer = await fetch(path, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  });
  const told = await answer.json().catch(() => null);
  if (!answer.ok) throw new Error(told?.error || "the server answered " + answer.status);
  return told;
};

const findings = (found, go) => make("ul", { class: "annotations", "aria-label": "Findings" }, ...found.map((one) => {
  const place = make("button", { type: "button" }, one.line + ":" + one.column);
  place.addEventListener("click", () => go(one.line));
  return make("li", { class: one.level }, make("b", {}, one.level), " ", place, " ", make("span", {}, one.message), " ",
    make("span", { class: "quiet" }, one.help));
}));

const jobs = (outline) => make("table", { class: "list" },
  make("thead", {}, make("tr", {}, ...["Job", "Steps", "Matrix jobs", "Needs"].map((name) => make("th", {}, name)))),
  make("tbody", {}, ...outline.jobs.map((job) => make("tr", {},
    make("td", {}, job.id), make("td", {}, job.calls ? "calls " + job.calls : String(job.steps)),
    make("td", {}, job.legs === null ? "?" : String(job.legs)), make("td", {}, job.needs.join(", "))))));

export const edit = (place) => {
  const { repository, path } = place.dataset;
  const text = document.getElementById("text");
  const colours = document.getElementById("colours");
  const preview = document.getElementById("preview");
  const actions = document.getElementById("edit-actions");
  const written = text.value;
  let marked = new Set();
  let asked = 0;

  const paint = () => colours.replaceChildren(coloured(text.value, marked));

  const go = (line) => {
    const start = text.value.split("\n").slice(0, line - 1).reduce((sum, one) => sum + one.length + 1, 0);
    text.focus();
    text.setSelectionRange(start, start);
  };

  const look = async () => {
    const turn = ++asked;
    const told = await ask("/api/preview", { path, text: text.value }).catch((error) => ({ problem: error.message }));
    if (turn !== asked) return;
    marked = new Set((told.findings || []).map((one) => one.line));
    paint();
    preview.replaceChildren();
    if (told.problem) preview.append(make("p", { class: "problem" }, told.problem));
    if (told.findings?.length) preview.append(findings(told.findings, go));
    if (told.outline) {
      preview.append(make("p", {}, told.outline.name + ", on " + told.outline.on.join(", ")), jobs(told.outline));
    }
  };

  let timer = null;
  text.addEventListener("input", () => {
    paint();
    clearTimeout(timer);
    timer = setTimeout(look, PAUSE);
  });
  addEventListener("beforeunload", (leaving) => {
    if (text.value !== written && !place.dataset.published) leaving.preventDefault();
  });

  text.readOnly = false;
  colours.hidden = false;
  text.parentElement.classList.add("live");
  paint();
  // What the server found gets its marks and its ways into the text.
  if (preview.querySelector("li")) look();

  const told = make("span", { role: "status" });
  const publish = async (withdraw) => {
    told.textContent = WAITING;
    const content = withdraw ? "" : text.value;
    const draft = await ask("/api/preview", { repository, path, text: content, withdraw });
    if (draft.findings.some((one) => one.level === "error")) throw new Error("What is wrong in it is listed below.");
    // Later than the one that counts, or nothing would change.
    const at = Math.max(Math.floor(Date.now() / 1000), Number(place.dataset.newest) + 1);
    const event = await signed(draft.tags, KIND, content, at);
    told.textContent = "Publishing …";
    await ask("/api/definitions", { event });
    place.dataset.published = "yes";
    location.assign(location.pathname + "?path=" + encodeURIComponent(path));
  };
  if (!key()) {
    actions.replaceChildren(make("span", { class: "quiet" }, "Sign in to publish or run it."));
    return;
  }
  const send = button("Publish", () => publish(false), told);
  send.classList.add("primary");
  actions.replaceChildren(send);
  if ("defined" in place.dataset) {
    actions.append(
      button("Run it", async () => {
        if (text.value !== written) throw new Error("What you wrote is not published yet, and the published version would run: publish first.");
        makeRun({ repository, workflow: path, reference: "", commit: "" });
      }, told),
      button("Withdraw", () => publish(true), told),
    );
  }
  actions.append(told);
};
