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
  const number = make("input", { type: "number", min: "1", name: "line", placeholder: "Go to line", "aria-label": "Go to line" });
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
  // How somebody likes logs holds for the next one too.
  const kept = (name) => localStorage.getItem("longshore.log." + name) === "on";
  const keep = (name, act) => (on) => {
    localStorage.setItem("longshore.log." + name, on ? "on" : "off");
    act(on);
  };
  const [followLabel, follow] = box("Follow", "", acts.follows, acts.changed);
  followLabel.hidden = !acts.live;
  const [wrapLabel, wrap] = box("Wrap", "w", kept("wrap"), keep("wrap", acts.wrap));
  const [timesLabel, times] = box("Times", "", kept("times"), keep("times", acts.times));
  const fold = make("button", { type: "button", class: "plain" }, "Fold all");
  let folded = false;
  fold.addEventListener("click", () => {
    folded = !folded;
    fold.textContent = folded ? "Unfold all" : "Fold all";
    acts.fold(folded);
  });
  place.prepend(form, jump, followLabel, wrapLabel, timesLabel, fold);

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, textarea, select, dialog")) return;
    const keys = {
      "/": () => { field.focus(); field.select(); },
      n: () => acts.step(1),
      N: () => acts.step(-1),
      w: () => { wrap.checked = !wrap.checked; wrap.dispatchEvent(new Event("change")); },
      e: acts.error,
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  return { follow, field, wraps: wrap.checked, times: times.checked };
};
