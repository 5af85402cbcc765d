// The storefront: searches by words and picture, shows similar and recommended products, sends clicks as events.
"use strict";

const $ = (id) => document.getElementById(id);
const remembered = (store, key) => {
  let value = store.getItem(key);
  if (!value) store.setItem(key, (value = "web-" + Array.from(crypto.getRandomValues(new Uint32Array(3)), (n) => n.toString(36)).join("")));
  return value;
};
const user = remembered(localStorage, "user");
const session = remembered(sessionStorage, "session");
let picture = null; // data URL
let turn = 0; // answers to older questions are dropped
let typing = 0; // timer of the next suggestions

let key = sessionStorage.getItem("key"); // an API key, where the service asks for one; gone with the tab
let asking = null;

async function send(path, options = {}) {
  const used = key;
  const response = await fetch(path, { ...options, headers: { ...options.headers, ...(used && { Authorization: `Bearer ${used}` }) } });
  if (response.status !== 401) return response;
  if (used === key) await (asking ??= askForKey()); // one question, however many calls wait for the answer
  return key && key !== used ? send(path, options) : response;
}

async function askForKey() {
  key = (prompt("This service asks for an API key with the scope “search”.") || "").trim() || null;
  if (key) sessionStorage.setItem("key", key);
  else sessionStorage.removeItem("key");
  setTimeout(() => (asking = null), key ? 0 : 3000);
}

async function load(image, path) {
  if (!key) return void (image.src = path);
  const response = await send(path); // a picture's own request could not carry the key
  if (!response.ok) return image.remove();
  image.onload = () => URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(await response.blob());
}

async function call(path, body) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await send(path, options || undefined);
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ? `${answer.error.message} ${answer.error.hint}`.trim() : `Error ${response.status}`);
  return answer;
}

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

function price(value) {
  if (!value) return "";
  const amounts = value.max ? [value.amount, value.max] : [value.amount];
  try {
    const money = new Intl.NumberFormat(undefined, { style: "currency", currency: value.currency });
    return amounts.map((amount) => money.format(amount)).join(" – ");
  } catch {
    return `${amounts.join(" – ")} ${value.currency || ""}`;
  }
}

function card(hit, position, answer) {
  const item = $("card").content.firstElementChild.cloneNode(true);
  const image = item.querySelector("img");
  if (hit.image) {
    load(image, hit.image).catch(() => image.remove());
    image.alt = hit.title || "";
    image.onerror = () => image.remove();
  } else image.remove();
  item.querySelector("h3").textContent = hit.title || hit.product_id;
  item.querySelector(".brandline").textContent = [hit.brand, hit.in_stock === false ? "sold out" : ""].filter(Boolean).join(" · ");
  item.querySelector(".price").textContent = price(hit.price);
  item.querySelector(".score").textContent = hit.score.toFixed(3);
  const clicked = async () => {
    const event = { type: "click", product_id: hit.product_id, user_id: user, session_id: session, request_id: answer.request_id, position, timestamp: Date.now() };
    await call("/v1/events", [event]).catch((error) => say(error.message, true));
  };
  const open = async () => {
    await clicked();
    await similar(hit);
  };
  item.addEventListener("click", open);
  item.addEventListener("keydown", (key) => key.key === "Enter" && key.target === item && open());
  return item;
}

function show(answer, where) {
  where.replaceChildren(...answer.hits.map((hit, position) => card(hit, position, answer)));
  $("generation").textContent = `generation ${answer.generation}`;
}

async function ask(waiting, question, words) {
  const mine = ++turn;
  say(waiting);
  try {
    const answer = await question();
    if (mine !== turn) return;
    show(answer, $("results"));
    const read = answer.corrected ? ` · read as “${answer.corrected}”` : "";
    say(answer.hits.length ? `${words}${read} · ${answer.took_ms.toFixed(0)} ms` : "Nothing found.");
  } catch (error) {
    if (mine === turn) say(error.message, true);
  }
  recommend();
}

function search() {
  const text = $("text").value.trim();
  if (!text && !picture) return say("Type something, or choose a picture.");
  history.replaceState(null, "", text ? `?q=${encodeURIComponent(text)}` : "/"); // a search can be shared and reloaded
  const body = { limit: 24, user_id: user, session_id: session };
  if (text) body.text = text;
  if (picture) body.image = picture;
  return ask("Searching…", () => call("/v1/search", body), [text && `“${text}”`, picture && "your picture"].filter(Boolean).join(" and "));
}

async function suggest() {
  const text = $("text").value;
  if (!text.trim() || text.length > 200) return $("suggestions").replaceChildren();
  const answer = await call(`/v1/suggest?q=${encodeURIComponent(text)}`).catch(() => null); // a search works without
  if (!answer || $("text").value !== text) return;
  $("suggestions").replaceChildren(...answer.suggestions.map((found) => Object.assign(document.createElement("option"), { value: found.text })));
}

function similar(hit) {
  window.scrollTo({ top: 0, behavior: "smooth" });
  return ask("Looking…", () => call(`/v1/products/${encodeURIComponent(hit.product_id)}/similar?limit=24`), `Similar to ${hit.title || hit.product_id}`);
}

async function recommend() {
  try {
    const answer = await call("/v1/recommend", { user_id: user, session_id: session, limit: 12 });
    show(answer, $("recommended"));
    document.querySelector("#row h2").textContent = answer.source === "popularity" ? "Popular now" : "Recommended for you";
    $("row").hidden = !answer.hits.length;
  } catch {
    $("row").hidden = true;
  }
}

function choose(file) {
  if (!file || !file.type.startsWith("image/")) return;
  createImageBitmap(file).then((bitmap) => {
    const scale = Math.min(1, 512 / Math.max(bitmap.width, bitmap.height)); // the model sees less; the upload stays small
    const canvas = Object.assign(document.createElement("canvas"), { width: Math.max(1, bitmap.width * scale), height: Math.max(1, bitmap.height * scale) });
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    picture = canvas.toDataURL("image/png");
    $("preview").src = picture;
    $("preview").hidden = $("clear").hidden = false;
    search();
  }, () => say("This picture cannot be read.", true));
}

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
$("text").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(suggest, 150);
});
$("file").addEventListener("change", () => {
  choose($("file").files[0]);
  $("file").value = "";
});
$("clear").addEventListener("click", () => {
  picture = null;
  $("preview").hidden = $("clear").hidden = true;
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").hidden = false;
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").hidden = true;
});
addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").hidden = true;
  choose(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => choose(event.clipboardData.files[0]));
$("text").value = new URLSearchParams(location.search).get("q") || "";
if ($("text").value) search();
else {
  say("Search by words, drop a picture anywhere, or do both.");
  recommend();
}
