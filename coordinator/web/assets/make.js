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

// A run that is repeated may have had secrets; what they were is kept nowhere.
const secretsOf = (text) => {
  const found = pairs(text);
  const empty = found.find(([, value]) => !value);
  if (empty) throw new Error("The secret " + empty[0] + " has no value: write it behind the “=”, or delete the line to go on without it.");
  return found;
};

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

// What of an earlier run is done again: all of it, what failed, or one job, each with what depends on it.
const scopes = (from) => {
  const select = make("select", { name: "again" }, make("option", { value: "all" }, "all jobs"));
  if (from.jobs.some((job) => job.conclusion === "failure" || job.conclusion === "cancelled")) {
    select.append(make("option", { value: "failed" }, "what failed, and what depends on it"));
  }
  for (const id of new Set(from.jobs.map((job) => job.key.split("/")[0]))) {
    select.append(make("option", { value: "job " + id }, "the job " + id + ", and what depends on it"));
  }
  return select;
};

const again = (from, scope) => {
  const [kind, ...job] = scope.split(" ");
  const reference = (from.reference || "").startsWith("refs/") ? [["ref", from.reference]] : [];
  return [...reference, ["previous", from.run_event], job.length ? ["rerun", kind, job.join(" ")] : ["rerun", kind]];
};

// Opens the form, filled from an earlier run or from what is filtered by.
export const makeRun = (from) => {
  const select = from.run_event ? scopes(from) : null;
  const fixed = { required: true, readonly: select !== null };
  const [repository, repositoryField] = field("Repository (30617:KEY:NAME)", "repository", from.repository, fixed);
  const [workflow, workflowField] = field("Workflow file", "workflow", from.workflow, fixed);
  const [branch, branchField] = field("Branch or tag (none: the default branch)", "branch", short(from.reference || ""));
  const [commit, commitField] = field("Commit (none: the newest)", "commit", from.commit);
  const [inputs, inputsField] = field("Inputs, NAME=VALUE, one a line", "inputs", "", { rows: "3" });
  const names = from.secret_names || [];
  const sealed = names.length ? "Secrets of that run; their values are not kept: write them again" : "Secrets";
  const [secrets, secretsField] = field(sealed + ", NAME=VALUE, one a line; sealed for the pool", "secrets",
    names.map((name) => name + "=").join("\n"), { rows: "2", autocomplete: "off" });
  const fields = [select ? make("label", {}, "What", select) : null, repository, workflow, branch, commit, inputs, secrets];
  dialog("make-title", select ? "Run again" : "Run a workflow", fields, "Run", async (told) => {
    const wanted = {
      repository: repositoryField.value.trim(), workflow: workflowField.value.trim(), branch: branchField.value.trim(),
      commit: commitField.value.trim(), inputs: pairs(inputsField.value), secrets: secretsOf(secretsField.value),
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
