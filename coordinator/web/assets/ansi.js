// Colours of terminals (ECMA-48 SGR) as spans with classes. Other control sequences are left out.

const SEQUENCE = /\u001b\[([0-9;]*)([@-~])|\u001b\[[0-9:;<=>?]*[ -\/]*[@-~]?|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|\u001b[@-_]?|[\u0000-\u0008\u000b-\u001f\u007f]/g;

const apply = (style, codes) => {
  const numbers = (codes || "0").split(";").map(Number);
  for (let at = 0; at < numbers.length; at++) {
    const code = numbers[at];
    if (code === 0) Object.assign(style, { colour: null, b: false, f: false, i: false, u: false });
    else if (code === 1) style.b = true;
    else if (code === 2) style.f = true;
    else if (code === 3) style.i = true;
    else if (code === 4) style.u = true;
    else if (code === 22) style.b = style.f = false;
    else if (code === 23) style.i = false;
    else if (code === 24) style.u = false;
    else if (code >= 30 && code <= 37) style.colour = code - 30;
    else if (code >= 90 && code <= 97) style.colour = code - 90;
    else if (code === 39) style.colour = null;
    else if (code === 38 || code === 48) at += numbers[at + 1] === 5 ? 2 : numbers[at + 1] === 2 ? 4 : 0;
  }
};

// Letters that turn the direction of the text around them are shown to be there.
const TURNS = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
export const straight = (text) => text.replace(TURNS, "\ufffd");

export const plain = (text) => straight(text.replace(SEQUENCE, ""));

// Appends the text to an element.
export const paint = (element, text) => {
  const style = { colour: null, b: false, f: false, i: false, u: false };
  let from = 0;
  const piece = (raw) => {
    const part = straight(raw);
    if (!part) return;
    const names = ["b", "f", "i", "u"].filter((name) => style[name]).map((name) => "a-" + name);
    if (style.colour !== null) names.push("c" + style.colour);
    if (!names.length) return element.append(part);
    const span = document.createElement("span");
    span.className = names.join(" ");
    span.textContent = part;
    element.append(span);
  };
  for (const found of text.matchAll(SEQUENCE)) {
    piece(text.slice(from, found.index));
    if (found[2] === "m") apply(style, found[1]);
    from = found.index + found[0].length;
  }
  piece(text.slice(from));
};
