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
