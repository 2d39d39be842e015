"use strict";
const at = id => document.getElementById(id);
const make = (tag, className = "", text = "") =>
  Object.assign(document.createElement(tag), { className, textContent: text });
const MODEL = document.body.dataset.model;
const CITATION = /《([^》]*)》\[(\d+)\]：“([^”]*)”/g;
let language = localStorage.getItem("medray-language") ?? (navigator.language.startsWith("zh") ? "zh" : "en");
let words = WORDS[language];
let messages = [];
let running = null;
const VIEWS = ["chat", "consult", "attend", "search", "ratings"];

function speak() {
  words = WORDS[language];
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-words]")) element.textContent = words[element.dataset.words];
  for (const element of document.querySelectorAll("[data-name]")) element.setAttribute("aria-label", words[element.dataset.name]);
  at("language").textContent = words.language;
  if (running) at("send").textContent = words.stop;
  speakConsult();
  speakAttend();
  speakRecord();
  describeAll();
}

function say(text, bad = false) {
  at("status").textContent = text;
  at("status").classList.toggle("bad", bad);
}

function fail(error) {
  if (error.name === "AbortError") return say(words.stopped);
  if (error.status === 401) { signOut(); return say(words.wrongKey, true); }
  say(error.message, true);
}

// Signing in: the key is tried before it is kept.
async function start() {
  try {
    await call("v1/models");
    enter();
  } catch (error) {
    if (error.status !== 401) return say(error.message, true);
    if (sessionStorage.getItem(KEY)) say(words.wrongKey, true);
    signOut();
  }
}

function enter() {
  at("sign-in").hidden = true;
  at("sign-out").hidden = !sessionStorage.getItem(KEY);
  show("chat");
  at("question").focus();
  enterConsult();
  enterRatings();
}

function signOut() {
  sessionStorage.removeItem(KEY);
  messages = [];
  at("turns").replaceChildren();
  at("found").replaceChildren();
  at("sign-in").hidden = false;
  at("sign-out").hidden = true;
  for (const name of VIEWS) at(name).hidden = true;
  leaveConsult();
  leaveAttend();
  leaveRatings();
  takeAway();
  at("retrieval").value = "auto";
  at("key").focus();
}

function show(view) {
  if (!at("sign-in").hidden) return;
  for (const name of VIEWS) {
    at(name).hidden = name !== view;
    at(`view-${name}`).setAttribute("aria-pressed", String(name === view));
  }
  say("");
  if (view === "attend") showOpen();
  if (view === "ratings") showTask();
}

// Asking: a question, then an answer that grows, then its citations and tools.
async function ask(question) {
  messages.push({ role: "user", content: question });
  addTurn("user", words.you).body.textContent = question;
  const turn = addTurn("assistant", words.model);
  running = new AbortController();
  at("send").textContent = words.stop;
  say(words.working);
  let text = "", id = "", grounding = null;
  try {
    const retrieval = { sources: true, model: false }[at("retrieval").value];  // else the service decides
    const body = { model: MODEL, messages, retrieval, ...withRecord() };
    for await (const chunk of chunks("v1/chat/completions", body, running.signal)) {
      id = chunk.id;
      text += chunk.choices[0]?.delta.content ?? "";
      turn.body.textContent = text;
      if (chunk.medray) ground(turn, text, grounding = chunk.medray);
    }
    messages.push({ role: "assistant", content: text });
    addTools(turn, text, id, grounding);
    say(words.done);
  } catch (error) {
    messages.pop();
    fail(error);
  } finally {
    running = null;
    at("send").textContent = words.send;
  }
}

function addTurn(role, label, list = at("turns")) {
  const item = make("li", `turn ${role}`), body = make("p");
  item.append(make("div", "label", label), body);
  list.append(item);
  item.scrollIntoView({ block: "end" });
  return { item, body };
}

function ground(turn, text, grounding) {
  const verdict = make("p", "verdict");
  turn.item.append(verdict);
  if (grounding.guard) { verdict.textContent = words.refused; return; }
  if (!grounding.retrieval) { verdict.textContent = words.plain; return; }
  const count = name => grounding.verdicts.filter(v => v.verdict === name).length;
  const good = grounding.citations.filter(c => c.ok);
  if (count("no_answer")) verdict.textContent = words.none;
  else verdict.textContent = words.checked(good.length) +
    (count("failed") ? words.failed(count("failed")) : "") + (count("uncited") ? words.uncited(count("uncited")) : "");
  verdict.classList.toggle("bad", count("failed") + count("uncited") > 0);
  turn.body.replaceChildren(...linked(text, good, grounding.passages));
}

// The answer with each checked citation as a link that opens its passage.
function linked(text, citations, passages) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(CITATION)) {
    const [whole, title, number, quote] = match;
    const citation = citations.find(c => c.number === Number(number) && c.quote === quote);
    if (!citation) continue;
    const link = make("a", "cite", whole);  // a button would not flow with the text
    link.href = "#source";
    link.setAttribute("role", "button");
    link.setAttribute("aria-label", `${whole} ${words.open(title)}`);
    link.addEventListener("click", event => {
      event.preventDefault();
      open(passages.find(p => p.number === citation.number), citation);
    });
    parts.push(text.slice(end, match.index), link);
    end = match.index + whole.length;
  }
  return [...parts, text.slice(end)];
}

function open(passage, citation) {
  at("source-title").textContent = passage.title;
  at("source-where").textContent = where(passage);
  at("source-text").replaceChildren(...marked(passage, citation));
  at("source").showModal();
}

function marked(passage, citation) {
  if (!citation) return [passage.text];
  const begin = citation.start - passage.start, end = citation.end - passage.start;
  return [passage.text.slice(0, begin), make("mark", "", passage.text.slice(begin, end)), passage.text.slice(end)];
}

const where = p => [p.source, p.section, p.date, p.superseded_by && words.superseded(p.superseded_by), `${p.doc_id} [${p.start}:${p.end}]`].filter(Boolean).join(" · ");

function addTools(turn, text, id, grounding) {
  const tools = make("div", "tools");
  const copy = make("button", "quiet", words.copy), rate = make("button", "quiet", words.rate);
  copy.type = rate.type = "button";
  copy.addEventListener("click", () =>
    copyText(forRecord(text, id, grounding)).then(() => say(words.copied), fail));
  rate.addEventListener("click", () => { rate.disabled = true; turn.item.append(ratingForm(id)); });
  tools.append(copy, rate);
  turn.item.append(tools);
}

function ratingForm(id) {
  const form = make("form");
  const field = (name, element) => {
    const label = make("label", "", words[name]);
    element.id = label.htmlFor = `${name}-${id}`;
    form.append(label, element);
    return element;
  };
  const score = Object.assign(field("score", make("input")), { type: "number", min: 0, max: 10, step: 1 });
  const comment = field("comment", make("input")), corrected = field("corrected", make("textarea"));
  form.append(make("button", "", words.sendRating));
  form.addEventListener("submit", async event => {
    event.preventDefault();
    const said = { request: id };
    if (score.value !== "") said.score = Number(score.value);
    if (comment.value.trim()) said.comment = comment.value.trim();
    if (corrected.value.trim()) said.corrected = corrected.value.trim();
    try {
      await call("v1/feedback", said);
      form.remove();
      say(words.rated);
    } catch (error) { fail(error); }
  });
  queueMicrotask(() => score.focus());
  return form;
}

// Looking for passages alone, with what ranked them.
async function find(query) {
  say(words.working);
  try {
    const { data } = await (await call("v1/retrieve", { query })).json();
    at("found").replaceChildren(...data.map(passage => {
      const item = make("li", "turn");
      item.append(make("h2", "", `${passage.number}. ${passage.title}`), make("p", "", passage.text),
        make("small", "", `${words.scores(passage)} · ${where(passage)}`));
      return item;
    }));
    say(data.length ? words.foundSome(data.length) : words.foundNone);
  } catch (error) { fail(error); }
}

at("language").addEventListener("click", () => {
  language = language === "zh" ? "en" : "zh";
  localStorage.setItem("medray-language", language);
  speak();
});
at("sign-out").addEventListener("click", signOut);
at("sign-in").addEventListener("submit", event => {
  event.preventDefault();
  sessionStorage.setItem(KEY, at("key").value.trim());
  at("key").value = "";
  say("");
  start();
});
for (const view of VIEWS) at(`view-${view}`).addEventListener("click", () => show(view));
at("ask").addEventListener("submit", event => {
  event.preventDefault();
  if (running) return running.abort();
  const question = at("question").value.trim();
  if (!question) return;
  at("question").value = "";
  ask(question);
});
at("send").addEventListener("click", event => {
  if (running) { event.preventDefault(); running.abort(); }
});
at("question").addEventListener("keydown", event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("ask").requestSubmit();
});
at("anew").addEventListener("click", () => { running?.abort(); messages = []; at("turns").replaceChildren(); takeAway(); say(""); });
at("find").addEventListener("submit", event => { event.preventDefault(); find(at("query").value.trim()); });
document.addEventListener("DOMContentLoaded", () => { speak(); start(); });  // when all scripts are read
