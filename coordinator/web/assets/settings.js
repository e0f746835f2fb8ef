// The settings of a repository: secrets and variables are set and removed, caches deleted. Each order is signed.
import { dialog } from "./dialog.js";
import { make } from "./dom.js";
import { button, post, signer, WAITING } from "./sign.js";
import { json } from "./stream.js";

const MOST = 48 * 1024;

// A secret leaves the page encrypted for the pool: nobody between can read it.
const sealed = async (value) => {
  const own = await signer();
  if (!own.nip44) throw new Error("The signer cannot encrypt (NIP-44): use one that can.");
  return own.nip44.encrypt((await json("/api/pool")).pubkey, value);
};

const path = (settings, end) => "/api/repositories/" + encodeURIComponent(settings.dataset.repository) + end;

// Orders of one name have an order by their seconds: one that came within the second of another is signed again.
const order = async (settings, content) => {
  try {
    await post(path(settings, "/values"), content);
  } catch (error) {
    if (error.status !== 409) throw error;
    await new Promise((done) => setTimeout(done, 1100));
    await post(path(settings, "/values"), content);
  }
};

const form = (settings, kind, from) => {
  const name = make("input", { name: "name", required: true, autocomplete: "off", spellcheck: "false", autocapitalize: "characters", pattern: "[A-Za-z_][A-Za-z0-9_]*", maxlength: "255" });
  const environment = make("input", { name: "environment", autocomplete: "off", spellcheck: "false", maxlength: "255" });
  const value = make("textarea", { name: "value", rows: "4", required: true, autocomplete: "off", spellcheck: "false", autocapitalize: "off" });
  if (from) {
    name.value = from.name;
    environment.value = from.environment;
    value.value = from.value;
    name.readOnly = environment.readOnly = true;
  }
  const hints = {
    name: make("span", { class: "hint" }, "Letters, digits and _. Workflows read it as " + (kind === "secret" ? "secrets.NAME." : "vars.NAME.")),
    environment: make("span", { class: "hint" }, "Empty: every job of a trusted run has it."),
    value: make("span", { class: "hint" }, kind === "secret" ? "It is encrypted before it leaves this page, and never shown again." : "Everybody who manages the repository sees it, and so do its logs."),
  };
  const fields = [make("label", {}, "Name", name, hints.name), make("label", {}, "Environment", environment, hints.environment), make("label", {}, "Value", value, hints.value)];
  dialog("value-title", from ? "Set " + from.label : "New " + kind, fields, "Save", async (told) => {
    if (new TextEncoder().encode(value.value).length > MOST) throw new Error("A value has at most 48 KiB.");
    told.textContent = WAITING;
    const content = kind === "secret" ? await sealed(value.value) : value.value;
    await order(settings, { kind, name: name.value, environment: environment.value, value: content });
    location.reload();
  });
};

const sure = (title, text, verb, act) =>
  dialog("sure-title", title, [make("p", {}, text)], verb, async (told) => {
    told.textContent = WAITING;
    await act();
    location.reload();
  });

export const settings = (place) => {
  for (const adding of place.querySelectorAll("[data-add]")) {
    const kind = adding.dataset.add;
    const told = make("span", { role: "status" });
    const add = button("New " + kind, async () => form(place, kind), told);
    if (kind === "secret") add.classList.add("primary");
    adding.append(add, told);
  }
  for (const row of place.querySelectorAll("tr[data-kind]")) {
    const { kind, name, environment, label } = row.dataset;
    const told = make("span", { role: "status" });
    const change = button("Change", async () => form(place, kind, { name, environment, label, value: row.querySelector(".value")?.textContent || "" }), told);
    change.setAttribute("aria-label", "Change " + label);
    const remove = button("Remove", async () =>
      sure("Remove " + label + "?", "Jobs that start from now on do not have it.", "Remove it", () => order(place, { kind, name, environment })), told);
    remove.setAttribute("aria-label", "Remove " + label);
    remove.classList.add("danger");
    row.lastElementChild.append(change, remove, told);
  }
  for (const row of place.querySelectorAll("tr[data-cache]")) {
    const { cache, label } = row.dataset;
    const told = make("span", { role: "status" });
    const remove = button("Delete", async () =>
      sure("Delete the cache " + label + "?", "The next job that asks for it makes it anew.", "Delete it", () => post(path(place, "/caches/delete"), { id: Number(cache) })), told);
    remove.setAttribute("aria-label", "Delete " + label);
    remove.classList.add("danger");
    row.lastElementChild.append(remove, told);
  }
};
