// A form in a window of its own: what it asks for, the button that does it, and what came of it.
import { attempt, make } from "./dom.js";

// `act` does what the button `verb` says; it tells how far it is by its argument, the line below the buttons.
export const dialog = (id, title, fields, verb, act) => {
  const told = make("p", { role: "status" });
  const send = make("button", { class: "primary" }, verb);
  const close = make("button", { type: "button" }, "Close");
  const form = make("form", { method: "dialog" }, make("h2", { id }, title), ...fields,
    make("div", { class: "actions" }, send, close), told);
  const frame = make("dialog", { "aria-labelledby": id }, form);
  close.addEventListener("click", () => frame.close());
  frame.addEventListener("close", () => frame.remove());
  form.addEventListener("submit", async (submitted) => {
    submitted.preventDefault();
    // What was done leads to another page: until it is there, nothing is done twice.
    if (await attempt(send, told, () => act(told))) send.setAttribute("aria-disabled", "true");
  });
  document.body.append(frame);
  frame.showModal();
};
