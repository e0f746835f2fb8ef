// Signing by a remote signer (NIP-46). The key of this page stays here, messages are sealed here (NIP-44); the server
// carries them to the signer's relay and back, and can read none.
import { chacha20 } from "./noble/ciphers/chacha.js";
import { expand, extract } from "./noble/hashes/hkdf.js";
import { hmac } from "./noble/hashes/hmac.js";
import { sha256 } from "./noble/hashes/sha2.js";
import { getSharedSecret, hashes, schnorr } from "./noble/secp256k1/index.js";
import { follow } from "./stream.js";

hashes.sha256 = sha256;
hashes.hmacSha256 = (key, message) => hmac(sha256, key, message);

const KIND = 24133;
// People have to find their signer and say yes there.
const PATIENCE = 180_000;
const MOST = 65535;

let resumed = null;

const bytes = (text) => new TextEncoder().encode(text);
const text = (data) => new TextDecoder("utf-8", { fatal: true }).decode(data);
const hex = (data) => [...data].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const unhex = (digits) => Uint8Array.from(digits.match(/../g) || [], (pair) => parseInt(pair, 16));
const random = (length) => crypto.getRandomValues(new Uint8Array(length));
const base64 = (data) => {
  let letters = "";
  for (const byte of data) letters += String.fromCharCode(byte);
  return btoa(letters);
};
const unbase64 = (letters) => Uint8Array.from(atob(letters), (letter) => letter.charCodeAt(0));
const join = (...parts) => {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
};

// NIP-44, version 2.
export const conversation = (secret, other) =>
  extract(sha256, getSharedSecret(secret, join(Uint8Array.of(2), unhex(other))).slice(1), bytes("nip44-v2"));

const padded = (length) => {
  if (length <= 32) return 32;
  const power = 2 ** (Math.floor(Math.log2(length - 1)) + 1);
  const chunk = power <= 256 ? 32 : power / 8;
  return chunk * (Math.floor((length - 1) / chunk) + 1);
};

const keys = (shared, nonce) => {
  const all = expand(sha256, shared, nonce, 76);
  return { cipher: all.slice(0, 32), nonce: all.slice(32, 44), mac: all.slice(44) };
};

export const seal = (shared, plain, nonce = random(32)) => {
  const data = bytes(plain);
  if (!data.length || data.length > MOST) throw new Error("this is too long for the signer, or empty");
  const filled = new Uint8Array(2 + padded(data.length));
  filled.set([data.length >> 8, data.length & 255]);
  filled.set(data, 2);
  const key = keys(shared, nonce);
  const sealed = chacha20(key.cipher, key.nonce, filled);
  return base64(join(Uint8Array.of(2), nonce, sealed, hmac(sha256, key.mac, join(nonce, sealed))));
};

export const unseal = (shared, payload) => {
  const data = unbase64(payload);
  if (data.length < 99 || data[0] !== 2) throw new Error("the signer's answer is sealed in another way");
  const [nonce, sealed, mac] = [data.slice(1, 33), data.slice(33, -32), data.slice(-32)];
  const key = keys(shared, nonce);
  const right = hmac(sha256, key.mac, join(nonce, sealed));
  if (right.reduce((differs, byte, at) => differs | (byte ^ mac[at]), 0)) throw new Error("the signer's answer was changed on its way");
  const filled = chacha20(key.cipher, key.nonce, sealed);
  const length = filled[0] * 256 + filled[1];
  if (!length || filled.length !== 2 + padded(length)) throw new Error("the signer's answer is padded wrongly");
  return text(filled.slice(2, 2 + length));
};

const signed = (secret, kind, tags, content) => {
  const event = { pubkey: hex(schnorr.getPublicKey(secret)), created_at: Math.floor(Date.now() / 1000), kind, tags, content };
  const id = sha256(bytes(JSON.stringify([0, event.pubkey, event.created_at, kind, tags, content])));
  return { ...event, id: hex(id), sig: hex(schnorr.sign(id, secret)) };
};

// A conversation with a signer: call(method, params) gives its answer.
const converse = ({ secret, remote, relay }, told) => {
  const own = unhex(secret);
  const shared = conversation(own, remote);
  const key = hex(schnorr.getPublicKey(own));
  const waiting = new Map();
  let fail;
  const ready = new Promise((done, failed) => {
    fail = failed;
    const query = new URLSearchParams({ relay, key });
    follow("/api/signer/answers?" + query, {
      ready: () => done(),
      answer: (event) => {
        if (event.kind !== KIND || event.pubkey !== remote) return;
        let said;
        try {
          said = JSON.parse(unseal(shared, event.content));
        } catch {
          return;
        }
        const one = waiting.get(said.id);
        if (!one) return;
        if (said.result === "auth_url") {
          told(said.error);
          return;
        }
        waiting.delete(said.id);
        if (said.error) one.fail(new Error("The signer says: " + said.error));
        else one.done(said.result);
      },
      refused: (reason) => {
        resumed = null;
        fail(new Error(reason));
      },
      // People allow it elsewhere, and an answer that nobody hears is lost.
    }, { unseen: true });
  });
  // Whoever calls is told.
  ready.catch(() => {});
  return async (method, params) => {
    await ready;
    const id = hex(random(16));
    const event = signed(own, KIND, [["p", remote]], seal(shared, JSON.stringify({ id, method, params })));
    const answer = new Promise((done, failed) => {
      waiting.set(id, { done, fail: failed });
      setTimeout(() => {
        if (waiting.delete(id)) failed(new Error("The signer did not answer: is it online, and did you allow it there?"));
      }, PATIENCE);
    });
    const sent = await fetch("/api/signer/messages", {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ relay, event }),
    });
    if (!sent.ok) {
      waiting.delete(id);
      throw new Error((await sent.json().catch(() => null))?.error || "the server answered " + sent.status);
    }
    return answer;
  };
};

const signer = (held, call) => ({
  held,
  getPublicKey: async () => held.user,
  signEvent: async (event) => JSON.parse(await call("sign_event", [JSON.stringify({ ...event, pubkey: held.user })])),
  nip44: { encrypt: (to, plain) => call("nip44_encrypt", [to, plain]) },
});

// What a bunker:// address says: the signer's key, its first relay, and a secret that counts once.
export const parse = (address) => {
  const found = /^bunker:\/\/([0-9a-f]{64})\?(.+)$/i.exec(address.trim());
  const query = new URLSearchParams(found?.[2] || "");
  const relay = query.get("relay");
  if (!found || !relay) throw new Error("this is no address of a signer: it begins with bunker:// and names a relay");
  return { remote: found[1].toLowerCase(), relay, once: query.get("secret") || "" };
};

// Signs in at a signer. `told` gets the address of a page where people allow it, if the signer has one.
export const connect = async (address, told) => {
  const { remote, relay, once } = parse(address);
  const held = { secret: hex(random(32)), remote, relay, user: "" };
  const call = converse(held, told);
  const kinds = [5401, 5100, 5102, 35417, 27235];
  const allowed = [...kinds.map((kind) => "sign_event:" + kind), "nip44_encrypt"].join(",");
  await call("connect", [remote, once, allowed]);
  held.user = await call("get_public_key", []);
  if (!/^[0-9a-f]{64}$/.test(held.user)) throw new Error("the signer answers no public key");
  return signer(held, call);
};

// The signer of this session, after another page was opened.
export const resume = (held) => (resumed ??= signer(held, converse(held, () => {})));
