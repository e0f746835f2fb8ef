// The search field offers terms for the word that is being written, behind those that stand there already. `/` leads to it.
import { make } from "./dom.js";

export const suggest = (field) => {
  const list = document.getElementById("search-terms");
  const terms = [...list.options].map((option) => option.value);
  field.addEventListener("input", () => {
    const before = field.value.slice(0, field.value.lastIndexOf(" ") + 1);
    const word = field.value.slice(before.length).toLowerCase();
    const fits = terms.filter((term) => term.toLowerCase().includes(word) && !before.includes(term + " "));
    list.replaceChildren(...fits.slice(0, 30).map((term) => make("option", { value: before + term })));
  });
  addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select, dialog");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    field.focus();
    field.select();
  });
};
