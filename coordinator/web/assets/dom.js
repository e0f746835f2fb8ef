// Elements from text. Everything from outside enters a page through here, as text, never as markup.

export const make = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
};

export const state = (word) => make("span", { class: "state " + word }, word);

export const moment = (millis) => new Date(millis).toISOString().slice(0, 19).replace("T", " ");

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
