// The bar above a log: search, steps through what was found, a line by its number, and how lines are shown. Keys do the same.
import { icon, make } from "./dom.js";

export const logBar = (place, acts) => {
  const tool = (name, label, key, act) => {
    const button = make("button", { type: "button", class: "plain", "aria-label": label, title: label + (key ? " (" + key + ")" : "") }, icon(name));
    button.addEventListener("click", act);
    return button;
  };
  const field = make("input", { type: "search", maxlength: "200", name: "search", placeholder: "Search (/)", "aria-label": "Search this log" });
  const form = make("form", { class: "find", role: "search" }, field,
    tool("up", "Previous match", "N", () => acts.step(-1)), make("button", { class: "plain", "aria-label": "Next match", title: "Next match (n)" }, icon("down")));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    acts.search(field.value);
  });
  const number = make("input", { type: "number", min: "1", name: "line", placeholder: "Line", "aria-label": "Line" });
  // What is typed is what is wanted next, as a rule.
  number.addEventListener("input", () => { if (number.value >= 1) acts.expect(Number(number.value)); });
  const jump = make("form", { class: "jump" }, number);
  jump.addEventListener("submit", (event) => {
    event.preventDefault();
    acts.go(Number(number.value) || 1);
  });
  const box = (text, key, checked, changed) => {
    const input = make("input", { type: "checkbox" });
    input.checked = checked;
    input.addEventListener("change", () => changed(input.checked));
    return [make("label", { title: key ? text + " (" + key + ")" : text }, input, text), input];
  };
  const [followLabel, follow] = box("Follow", "", acts.follows, acts.changed);
  const [wrapLabel, wrap] = box("Wrap", "w", false, acts.wrap);
  const [timesLabel] = box("Times", "", false, acts.times);
  const fold = make("button", { type: "button", class: "plain" }, "Fold all");
  const unfold = make("button", { type: "button", class: "plain" }, "Unfold all");
  fold.addEventListener("click", () => acts.fold(true));
  unfold.addEventListener("click", () => acts.fold(false));
  place.prepend(form, jump, followLabel, wrapLabel, timesLabel, fold, unfold);

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, textarea, select, dialog")) return;
    const keys = {
      "/": () => { field.focus(); field.select(); },
      n: () => acts.step(1),
      N: () => acts.step(-1),
      w: () => { wrap.checked = !wrap.checked; acts.wrap(wrap.checked); },
      e: acts.error,
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  return { follow, field };
};
