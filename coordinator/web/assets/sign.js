// Signing in with an extension (NIP-07) or a remote signer (NIP-46), and what a signature lets people do. The key never
// comes here: the signer signs.
import { dialog } from "./dialog.js";
import { attempt, make, person, state } from "./dom.js";
import { headers, json } from "./stream.js";
import { makeRun } from "./make.js";
import { reviews } from "./review.js";
import { moment } from "./time.js";

export const WAITING = "Waiting for the signer …";

const base64 = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));
const now = () => Math.floor(Date.now() / 1000);
const event = (kind, tags, content = "", at = now()) => ({ kind, created_at: at, content, tags });

export const key = () => sessionStorage.getItem("longshore.key");

// Who signs: the remote signer that was signed in with, or the extension. What it takes for the first is loaded with it.
export const signer = async () => {
  const held = sessionStorage.getItem("longshore.bunker");
  if (held) return (await import("./bunker.js")).resume(JSON.parse(held));
  if (!window.nostr) throw new Error("There is no signer in this browser: install an extension (NIP-07) and reload, or sign in with a remote signer.");
  return window.nostr;
};

export const signed = async (tags, kind, content, at) => (await signer()).signEvent(event(kind, tags, content, at));

const authorization = async (kind, tags) => "Nostr " + base64(JSON.stringify(await signed(tags, kind)));

const explain = async (answer) => {
  const told = await answer.json().catch(() => null);
  throw Object.assign(new Error(told?.error || "the server answered " + answer.status), { status: answer.status });
};

const sha256 = async (text) => {
  if (!crypto.subtle) throw new Error("The browser hashes only on pages that came over HTTPS, or from this machine.");
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return [...new Uint8Array(hash)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
};

// A request that counts once, for this address, body and minute (NIP-98). The nonce tells two of one second apart.
export const post = async (path, content) => {
  const pool = await json("/api/pool");
  const tags = [["u", pool.url + path], ["method", "POST"], ["nonce", crypto.getRandomValues(new Uint32Array(2)).join("")]];
  const body = content === undefined ? undefined : JSON.stringify(content);
  if (body !== undefined) tags.push(["payload", await sha256(body)]);
  const header = await authorization(27235, tags);
  const answer = await fetch(path, { method: "POST", headers: { authorization: header }, body });
  if (!answer.ok) await explain(answer);
  return answer;
};

// Events are their own authority: the request needs no other.
export const publish = async (events) => {
  const answer = await fetch("/api/events", {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ events }),
  });
  if (!answer.ok) await explain(answer);
  return answer.json();
};

const signIn = async () => {
  const own = await (await signer()).getPublicKey();
  // Reading private runs: one signature begins a session of an hour, which reads and does nothing else.
  const { token, until } = await (await post("/api/sessions")).json();
  sessionStorage.setItem("longshore.key", own);
  sessionStorage.setItem("longshore.reader", JSON.stringify({ header: "Bearer " + token, until }));
  location.reload();
};

// The form that asks with what to sign in: an extension of the browser, or a remote signer by its address.
const chooseSigner = async () => {
  const waiting = make("p", { role: "status" });
  const extension = signing("Browser extension", signIn, waiting);
  const field = make("input", { name: "bunker", required: true, autocomplete: "off", spellcheck: "false", placeholder: "bunker://…" });
  const label = make("label", {}, "Remote signer: the address that it shows", field);
  const fields = [make("p", { class: "hint" }, "Your key stays with your signer: this page never sees it."), extension, waiting, make("hr"), label];
  dialog("sign-in-title", "Sign in", fields, "Connect", async (told) => {
    told.textContent = "Waiting for the signer: it may ask you to allow this …";
    try {
      const { connect } = await import("./bunker.js");
      const found = await connect(field.value, (address) => {
        const safe = URL.canParse(address) && new URL(address).protocol === "https:";
        if (safe) told.replaceChildren("The signer asks you to ", make("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, "allow it there"), ".");
      });
      sessionStorage.setItem("longshore.bunker", JSON.stringify(found.held));
      await signIn();
    } catch (error) {
      forget("bunker");
      throw error;
    }
  });
};

const forget = (...names) => names.forEach((name) => sessionStorage.removeItem("longshore." + name));

const signOut = () => {
  forget("bunker", "key", "reader");
  location.reload();
};

export const button = (text, act, told) => {
  const element = make("button", { type: "button" }, text);
  element.addEventListener("click", () => attempt(element, told, act));
  return element;
};

// A button for what the signer has to sign.
export const signing = (text, act, told) => button(text, async () => {
  told.textContent = WAITING;
  await act();
  if (told.textContent === WAITING) told.textContent = "";
}, told);

const who = (place) => {
  const told = make("span", { role: "status" });
  if (!key()) {
    place.append(told, button("Sign in", chooseSigner, told));
    return;
  }
  const shown = person(key(), "");
  shown.append(make("span", { class: "vh" }, "Signed in as " + key()));
  place.append(shown);
  // What is private would be missing in silence.
  if (!headers().authorization) place.append("Your session has expired: private runs are not shown. ", signing("Sign in again", signIn, told));
  place.append(button("Sign out", signOut, told), told);
};

// Does what somebody asks for; who has not signed in is asked to first.
const asked = (text, act, told) => button(text, () => (key() ? act() : chooseSigner()), told);

const runActions = (run) => {
  const place = document.getElementById("actions");
  const told = make("span", { role: "status" });
  const ending = "Cancelling …";
  const sure = make("p", {}, "Running jobs stop now. Changes they already made are not undone.");
  const cancel = asked("Cancel run", async () => {
    dialog("cancel-title", "Cancel this run?", [sure], "Cancel the run", async (waiting) => {
      waiting.textContent = WAITING;
      await post("/api/runs/" + run.dataset.run + "/cancel");
      told.textContent = ending;
      waiting.closest("dialog").close();
    });
  }, told);
  cancel.classList.add("danger");
  const again = asked("Run again", async () => {
    makeRun(await json("/api/runs/" + run.dataset.run));
  }, told);
  const arrange = () => {
    again.classList.toggle("primary", !("live" in run.dataset));
    cancel.hidden = !("live" in run.dataset);
    again.hidden = "live" in run.dataset;
    if (cancel.hidden && told.textContent === ending) told.textContent = "";
  };
  const single = () => run.querySelectorAll("[data-again]:empty").forEach((one) => {
    const said = make("span", { role: "status" });
    const start = asked("Run this job again", async () => makeRun(await json("/api/runs/" + run.dataset.run), one.dataset.again), said);
    start.classList.add("plain");
    one.append(start, said);
  });
  arrange();
  single();
  run.addEventListener("refreshed", () => { arrange(); single(); });
  place.append(cancel, again, told);
  reviews(run);
};

// One job of a run, on the page of its log.
const jobActions = (place) => {
  const told = make("span", { role: "status" });
  const again = asked("Run this job again", async () => {
    makeRun(await json("/api/runs/" + place.dataset.run), place.dataset.scope);
  }, told);
  const arrange = () => { again.hidden = "live" in place.dataset; };
  arrange();
  document.addEventListener("refreshed", arrange);
  place.append(again, told);
};

const poolActions = async (workers) => {
  if (!headers().authorization) return;
  const answer = await fetch("/api/me", { headers: headers() });
  if (!answer.ok || !(await answer.json()).operator) return;
  for (const row of workers.tBodies[0].rows) {
    if ("draining" in row.dataset) continue;
    const told = make("span", { role: "status" });
    const drain = signing("Drain", async () => {
      await post("/api/workers/" + encodeURIComponent(row.dataset.worker) + "/drain");
      location.reload();
    }, told);
    drain.title = "It gets no new jobs, and ends when its running ones are done";
    drain.setAttribute("aria-label", "Drain " + row.dataset.name);
    row.cells[1].append(" ", drain, " ", told);
  }
  await deliveries(workers);
};

// Deliveries of webhooks, for the operator.
const deliveries = async (workers) => {
  const answer = await fetch("/api/webhooks", { headers: headers() });
  if (!answer.ok) return;
  const found = await answer.json();
  if (!found.length) return;
  const row = (one) =>
    make("tr", {}, make("td", {}, state(one.state)), make("td", {}, one.event), make("td", { class: "any" }, one.url),
      make("td", {}, make("a", { href: "/runs/" + one.run }, "run")), make("td", {}, String(one.tries)),
      make("td", { class: "any" }, one.answer), make("td", {}, moment(one.made_at)));
  const titles = ["State", "Event", "To", "Run", "Tries", "Last answer", "Since"].map((title) => make("th", {}, title));
  workers.closest("main").append(make("h2", {}, "Webhooks"),
    make("table", { class: "list", id: "webhooks" }, make("thead", {}, make("tr", {}, ...titles)), make("tbody", {}, ...found.map(row))));
};

// A button that asks for a run of what its place names.
const runs = (place) => {
  const { runs: text, repository, workflow, reference, commit } = place.dataset;
  const [declared, workflows] = [place.dataset.inputs, place.dataset.workflows].map((given) => (given ? JSON.parse(given) : undefined));
  const told = make("span", { role: "status" });
  const start = asked(text, async () => makeRun({ repository, workflow, reference, commit, declared, workflows }), told);
  if (workflow) start.setAttribute("aria-label", text + ": " + workflow);
  if ("primary" in place.dataset) start.classList.add("primary");
  place.append(start, told);
};

// A page comes as a stranger sees it. Where readers see more, it is asked for again with the reader's token.
const reread = async (main) => {
  if (!headers().authorization) return;
  const answer = await fetch(location.pathname + location.search, { headers: headers() }).catch(() => null);
  if (!answer?.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const shown = fresh.getElementById("main");
  if (!shown) return;
  document.title = fresh.title;
  main.replaceWith(shown);
  document.getElementById(location.hash.slice(1))?.scrollIntoView();
};

export const start = async () => {
  const main = document.querySelector("main:is([data-refused], [data-readers])");
  if (main) await reread(main);
  who(document.getElementById("who"));
  const invited = document.getElementById("sign-in");
  if (invited && !key()) {
    const told = make("span", { role: "status" });
    const start = button("Sign in", chooseSigner, told);
    start.classList.add("primary");
    invited.append(start, told);
  }
  const run = document.getElementById("run");
  if (run) runActions(run);
  const job = document.getElementById("job-actions");
  if (job) jobActions(job);
  document.querySelectorAll("[data-runs]").forEach(runs);
  if (!key()) return;
  const workers = document.getElementById("workers");
  if (workers) poolActions(workers);
};
