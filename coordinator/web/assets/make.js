// The form that asks for a run, and the two events that it becomes: a run (5401) and a job (5100).
import { dialog } from "./dialog.js";
import { make } from "./dom.js";
import { json } from "./stream.js";
import { publish, signed, signer, WAITING } from "./sign.js";

const short = (reference) => reference.replace(/^refs\/(heads|tags)\//, "");

const pairs = (text) =>
  text.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => {
    const at = line.indexOf("=");
    if (at < 1) throw new Error("“" + line + "” is not NAME=VALUE");
    return [line.slice(0, at), line.slice(at + 1)];
  });

// What the events say.
const events = async (wanted, pool) => {
  const publisher = await (await fetch("/api/publisher", { method: "POST" })).json();
  const [, owner, ...name] = wanted.repository.split(":");
  if (!owner || !name.length) throw new Error("write the repository as 30617:KEY:NAME");
  const own = await signer();
  if (!own.nip44) throw new Error("The signer cannot encrypt (NIP-44): use one that can.");
  const author = await own.getPublicKey();
  const run = await signed([
    ["a", wanted.repository], ["workflow", wanted.workflow], ["triggered-by", author], ["publisher", publisher.public],
    ["trigger", wanted.trigger], ["branch", wanted.branch], ["commit", wanted.commit], ["t", "hive-ci"],
    ...wanted.inputs.map(([name, value]) => ["input", name, value]), ...wanted.tags,
  ], 5401);
  const tags = [
    ["p", pool.pubkey], ["e", run.id], ["cmd", "bash"],
    ["args", "-c", "echo 'this job wants a runner that runs workflows itself' >&2; exit 1"],
    ["env", "HIVE_CI_RUN_ID", run.id], ["env", "HIVE_CI_REPOSITORY", wanted.repository],
    ["env", "HIVE_CI_WORKFLOW", wanted.workflow], ["env", "HIVE_CI_BRANCH", wanted.branch],
    ["env", "HIVE_CI_COMMIT", wanted.commit], ["env", "HIVE_CI_RELAYS", pool.relays.join(",")],
  ];
  for (const [name, value] of [["HIVE_CI_NSEC", publisher.secret], ...wanted.secrets]) {
    tags.push(["secret", name, await own.nip44.encrypt(pool.pubkey, value)]);
  }
  return [run, await signed(tags, 5100)];
};

const appeared = async (job) => {
  for (let tries = 0; tries < 60; tries++) {
    const [run] = await json("/api/runs?request=" + job);
    if (run) return run.id;
    await new Promise((done) => setTimeout(done, 500));
  }
  throw new Error("The events are published, but the pool has made no run of them within 30 seconds. If it refused them, its answer (kind 30100) on its relays says why.");
};

const field = (text, name, value, more = {}) => {
  const input = make(more.rows ? "textarea" : "input", { name, ...more });
  input.value = value || "";
  return [make("label", {}, text, input), input];
};

// One declared input as a field of its type; `read` gives what is to be sent, none where the workflow decides.
const declared = (input, given) => {
  const name = "input." + input.name;
  const value = given === undefined || given === null ? input.default ?? "" : String(given);
  const text = input.name + (input.required ? " (required)" : "");
  if (input.kind === "boolean") {
    const box = make("input", { type: "checkbox", name });
    box.checked = value === "true";
    return { label: make("label", { class: "check" }, box, text), read: () => [[input.name, String(box.checked)]] };
  }
  let control;
  if (input.kind === "choice") {
    control = make("select", { name, required: input.required }, make("option", { value: "" }, input.required ? "Choose …" : "(the default)"),
      ...input.options.map((option) => make("option", { value: option }, option)));
  } else {
    control = make("input", { name, type: input.kind === "number" ? "number" : "text", step: input.kind === "number" ? "any" : null, required: input.required, autocomplete: "off" });
  }
  control.value = value;
  return { label: make("label", {}, text, control), read: () => (control.value === "" ? [] : [[input.name, control.value]]) };
};

// Fields for what the workflow declares; where that is not known, lines of text.
const inputFields = (from) => {
  if (!from.declared) {
    const [label, area] = field("Inputs, NAME=VALUE, one a line", "inputs", "", { rows: "3" });
    return { labels: [label], read: () => pairs(area.value) };
  }
  const all = from.declared.map((input) => declared(input, from.inputs?.[input.name]));
  return { labels: all.map((one) => one.label), read: () => all.flatMap((one) => one.read()) };
};

// Names and values of secrets, which nobody behind one's back can read.
const secretFields = (names) => {
  const rows = make("div", { class: "secrets" });
  const add = (name = "") => {
    const key = make("input", { "aria-label": "Name of a secret", placeholder: "NAME", autocomplete: "off", spellcheck: "false" });
    key.value = name;
    key.readOnly = name !== "";
    const value = make("input", { type: "password", "aria-label": name ? "Value of " + name : "Its value", placeholder: "value", autocomplete: "new-password" });
    const drop = make("button", { type: "button", class: "plain", "aria-label": name ? "Go on without " + name : "Remove" }, "Remove");
    const row = make("div", { class: "secret" }, key, value, drop);
    drop.addEventListener("click", () => row.remove());
    rows.append(row);
    return key;
  };
  names.forEach((name) => add(name));
  const more = make("button", { type: "button", class: "plain" }, "Add a secret");
  more.addEventListener("click", () => add().focus());
  const read = () => [...rows.children].map((row) => [...row.querySelectorAll("input")].map((input) => input.value)).map(([name, value]) => {
    if (name && !value) throw new Error("The secret " + name + " has no value: write it, or remove the secret to go on without it.");
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) throw new Error("“" + name + "” is no name of a secret: letters, digits and _ alone.");
    return [name, value];
  });
  const hint = names.length ? "The values of that run's secrets are not kept: write them again." : "Sealed for the pool; only this run gets them.";
  return { labels: [make("fieldset", {}, make("legend", {}, "Secrets"), make("p", { class: "hint" }, hint), rows, more)], read };
};

// What of an earlier run is done again: what failed, all of it, or one job, each with what depends on it.
const scopes = (from) => {
  const select = make("select", { name: "again" });
  if (from.jobs.some((job) => job.conclusion === "failure" || job.conclusion === "cancelled")) {
    select.append(make("option", { value: "failed" }, "Failed jobs and the jobs that depend on them"));
  }
  select.append(make("option", { value: "all" }, "All jobs"));
  const one = make("optgroup", { label: "One job, and the jobs that depend on it" });
  const known = new Set();
  for (const job of from.jobs) {
    const id = job.key.split("/")[0];
    const isLeg = job.matrix && job.rerun === job.key;
    if (!known.has(id)) one.append(make("option", { value: "job " + id }, isLeg ? "All legs of " + id : job.key === id ? job.name : id));
    known.add(id);
    if (isLeg) one.append(make("option", { value: "job " + job.rerun }, job.name));
  }
  select.append(one);
  return select;
};

const again = (from, scope) => {
  const [kind, ...job] = scope.split(" ");
  const reference = (from.reference || "").startsWith("refs/") ? [["ref", from.reference]] : [];
  return [...reference, ["previous", from.run_event], job.length ? ["rerun", kind, job.join(" ")] : ["rerun", kind]];
};

// Opens the form, filled from an earlier run or from what is filtered by.
export const makeRun = (from, scope) => {
  const select = from.run_event ? scopes(from) : null;
  if (select && scope) select.value = scope;
  const isKnown = Boolean(from.repository && from.workflow);
  const hidden = isKnown ? { type: "hidden" } : { required: true };
  const [repository, repositoryField] = field("Repository (30617:KEY:NAME)", "repository", from.repository, hidden);
  const [workflow, workflowField] = field("Workflow file", "workflow", from.workflow, hidden);
  const [branch, branchField] = field("Branch or tag (none: the default branch)", "branch", short(from.reference || ""));
  const [commit, commitField] = field("Commit (none: the newest of the branch)", "commit", from.commit);
  let inputs = inputFields(from);
  const place = make("div", { class: "inputs" }, ...inputs.labels);
  // Which of the repository's workflows: each has inputs of its own.
  const choice = from.workflows?.length ? make("select", { name: "workflow" }, ...from.workflows.map((one) => make("option", { value: one.path }, one.name))) : null;
  const choose = () => {
    inputs = inputFields({ declared: from.workflows.find((one) => one.path === choice.value).inputs });
    place.replaceChildren(...inputs.labels);
  };
  if (choice) {
    choice.addEventListener("change", choose);
    choose();
  }
  const secrets = secretFields(from.secret_names || []);
  const what = isKnown ? make("p", { class: "hint any" }, from.workflow.replace(/^\.github\/workflows\//, "") + " of " + from.repository.split(":").slice(2).join(":")) : null;
  const known = choice ? [Object.assign(repositoryField, { type: "hidden" }), make("label", {}, "Workflow", choice)] : isKnown ? [repositoryField, workflowField] : [repository, workflow];
  const elsewhere = make("details", {}, make("summary", { class: "small" }, "Another commit"), commit);
  const fields = [what, select ? make("label", {}, "Jobs to run", select) : null, ...known, branch, place, ...secrets.labels, elsewhere].filter(Boolean);
  dialog("make-title", select ? "Run again" : "Run workflow", fields, "Start run", async (told) => {
    const wanted = {
      repository: repositoryField.value.trim(), workflow: (choice || workflowField).value.trim(), branch: branchField.value.trim(),
      commit: commitField.value.trim(), inputs: inputs.read(), secrets: secrets.read(),
      trigger: from.trigger || "manual", tags: select ? again(from, select.value) : [],
    };
    told.textContent = WAITING;
    const made = await events(wanted, await json("/api/pool"));
    told.textContent = "Publishing …";
    await publish(made);
    told.textContent = "Published; waiting for the run …";
    location.assign("/runs/" + (await appeared(made[1].id)));
  });
};
