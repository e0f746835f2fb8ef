// What is too long to be read has a button that copies it.
import { icon, make } from "./dom.js";

export const copyButtons = (within) => {
  for (const place of within.querySelectorAll("[data-copy]")) {
    const text = place.dataset.copy;
    const button = make("button", { type: "button", class: "copy", "aria-label": "Copy " + text.slice(0, 8) + "…", title: "Copy" }, icon("copy"));
    button.addEventListener("click", async () => {
      await navigator.clipboard?.writeText(text);
      button.replaceChildren(icon("success"));
      setTimeout(() => button.replaceChildren(icon("copy")), 1500);
    });
    place.after(button);
    place.removeAttribute("data-copy");
  }
};
