// Elements from text. Everything from outside enters a page through here, as text, never as markup.

const fill = (element, attributes, children) => {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
};

export const make = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);

const SVG = "http://www.w3.org/2000/svg";
export const icon = (name) => fill(document.createElementNS(SVG, "svg"), { class: "i", "aria-hidden": "true" },
  [fill(document.createElementNS(SVG, "use"), { href: "#i-" + name }, [])]);

// The drawing for a state, as in state.rs.
const DRAWN = {
  success: "success", delivered: "success", connected: "success", failure: "failure", given_up: "failure", error: "failure",
  lost: "failure", cancelled: "cancelled", skipped: "skipped", away: "skipped", running: "running", active: "running",
  cancelling: "running", sealing: "running", planning: "running", waiting: "waiting", held: "waiting", draining: "waiting",
  warning: "warning", notice: "notice",
};

export const state = (word) => make("span", { class: "state " + word }, icon(DRAWN[word] || "queued"), word);
export const mark = (word) =>
  make("span", { class: "state " + word }, icon(DRAWN[word] || "queued"), make("span", { class: "vh" }, word));

export const person = (key, name) => make("span", { class: "person", title: key },
  make("img", { class: "avatar", src: "/avatars/" + encodeURIComponent(key) + ".svg", alt: "", width: "18", height: "18" }), name);

// Does what a control stands for, once at a time, and tells beside it what goes wrong; gives whether it was done. The
// control stays where the keyboard is: one that is disabled would lose it.
export const attempt = async (control, told, act) => {
  if (control.getAttribute("aria-disabled") === "true") return false;
  control.setAttribute("aria-disabled", "true");
  told.textContent = "";
  told.classList.remove("problem");
  try {
    await act();
    return true;
  } catch (error) {
    // Signers throw whatever they like.
    told.textContent = error?.message || String(error);
    told.classList.add("problem");
    return false;
  } finally {
    control.removeAttribute("aria-disabled");
  }
};
