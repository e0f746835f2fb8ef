// Colours of terminals (ECMA-48 SGR) as spans, addresses as links. Other control sequences are left out.

const SEQUENCE = /\u001b\[([0-9;:]*)([@-~])|\u001b\[[0-9:;<=>?]*[ -\/]*[@-~]?|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|\u001b[@-_]?|[\u0000-\u0008\u000b-\u001f\u007f]/g;
const ADDRESS = /https?:\/\/[^\s"'<>`\u0000-\u001f]+/g;

const SWITCHES = { 1: "b", 2: "f", 3: "i", 4: "u", 7: "reverse", 9: "s" };
const OFF = { 22: ["b", "f"], 23: ["i"], 24: ["u"], 27: ["reverse"], 29: ["s"] };
// What a program's 16 colours are on our ground, for backgrounds; as text they are classes.
const BASIC = [[55, 63, 75], [160, 48, 44], [30, 110, 58], [128, 92, 16], [40, 88, 176], [112, 66, 160], [20, 112, 124], [200, 207, 216],
  [92, 102, 116], [196, 66, 60], [42, 140, 76], [160, 118, 26], [60, 112, 210], [138, 88, 190], [30, 140, 154], [240, 243, 247]];
const STEPS = [0, 95, 135, 175, 215, 255];

const ofTable = (number) => {
  if (!(number >= 0 && number <= 255)) return null;
  if (number >= 232) return Array(3).fill(8 + 10 * (number - 232));
  const at = number - 16;
  return [STEPS[Math.floor(at / 36)], STEPS[Math.floor(at / 6) % 6], STEPS[at % 6]];
};

// `38;5;N` and `38;2;R;G;B`: the colour, and how many numbers it took.
const extended = (numbers) => {
  if (numbers[0] === 5) return [numbers[1] < 16 ? numbers[1] : ofTable(numbers[1]), 2];
  if (numbers[0] !== 2) return [null, 0];
  const rgb = numbers.slice(1, 4);
  return [rgb.length === 3 && rgb.every((part) => part >= 0 && part <= 255) ? rgb : null, 4];
};

const clean = () => ({ colour: null, ground: null, b: false, f: false, i: false, u: false, s: false, reverse: false });

const apply = (style, codes) => {
  const numbers = (codes || "0").split(/[;:]/).map(Number);
  for (let at = 0; at < numbers.length; at++) {
    const code = numbers[at];
    if (code === 0) Object.assign(style, clean());
    else if (SWITCHES[code]) style[SWITCHES[code]] = true;
    else if (OFF[code]) for (const name of OFF[code]) style[name] = false;
    else if (code >= 30 && code <= 37) style.colour = code - 30;
    else if (code >= 90 && code <= 97) style.colour = code - 82;
    else if (code >= 40 && code <= 47) style.ground = code - 40;
    else if (code >= 100 && code <= 107) style.ground = code - 92;
    else if (code === 39) style.colour = null;
    else if (code === 49) style.ground = null;
    else if (code === 38 || code === 48) {
      const [colour, took] = extended(numbers.slice(at + 1));
      style[code === 38 ? "colour" : "ground"] = colour;
      at += took;
    }
  }
};

// Luminance and contrast as WCAG 2 has them.
const luminance = (rgb) => {
  const [r, g, b] = rgb.map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (one, other) => {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
const GROUND = [17, 21, 27];
const READABLE = 4.5;
// A colour that can be read on a ground: lighter or darker than what the program asked for, where it must be.
const readable = (colour, ground) => {
  const goal = luminance(ground) > 0.18 ? 0 : 255;
  let found = colour;
  for (let tries = 0; tries < 12 && contrast(found, ground) < READABLE; tries++) found = found.map((part) => Math.round(part + (goal - part) * 0.25));
  return contrast(found, ground) < READABLE ? Array(3).fill(goal) : found;
};
const css = (rgb) => "rgb(" + rgb.join(" ") + ")";

// Letters that turn the direction of the text around them are shown to be there.
const TURNS = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
export const straight = (text) => text.replace(TURNS, "\ufffd");

export const plain = (text) => straight(text.replace(SEQUENCE, ""));

const dress = (element, style) => {
  let { colour, ground } = style;
  if (style.reverse) [colour, ground] = [ground ?? 0, colour ?? 7];
  for (const name of ["b", "f", "i", "u", "s"]) if (style[name]) element.classList.add("a-" + name);
  const rgb = (value) => (Array.isArray(value) ? value : BASIC[value]);
  if (ground !== null) {
    element.style.backgroundColor = css(rgb(ground));
    element.style.color = css(readable(colour === null ? [216, 222, 231] : rgb(colour), rgb(ground)));
  } else if (Array.isArray(colour)) element.style.color = css(readable(colour, GROUND));
  else if (colour !== null) element.classList.add("c" + colour);
};

const plainStyle = (style) => style.colour === null && style.ground === null && !["b", "f", "i", "u", "s", "reverse"].some((name) => style[name]);

// A text with its addresses as links: what is shown is where one goes.
const linked = (element, text) => {
  let from = 0;
  for (const found of text.matchAll(ADDRESS)) {
    const address = found[0].replace(/[.,;:!?)\]}]+$/, "");
    if (!URL.canParse(address)) continue;
    element.append(text.slice(from, found.index));
    const link = document.createElement("a");
    link.href = address;
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
    link.textContent = address;
    element.append(link);
    from = found.index + address.length;
  }
  element.append(text.slice(from));
};

// Appends the text to an element.
export const paint = (element, text) => {
  const style = clean();
  let from = 0;
  const piece = (raw) => {
    const part = straight(raw);
    if (!part) return;
    if (plainStyle(style)) return linked(element, part);
    const span = document.createElement("span");
    dress(span, style);
    linked(span, part);
    element.append(span);
  };
  for (const found of text.matchAll(SEQUENCE)) {
    piece(text.slice(from, found.index));
    if (found[2] === "m") apply(style, found[1]);
    from = found.index + found[0].length;
  }
  piece(text.slice(from));
};
