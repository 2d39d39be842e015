"use strict";
// The clinician's side: which consultations are open, what was said, taking over and handing back.
let attended = null;  // the consultation that is shown, without its messages
let mine = false;  // whether this page has taken it over

function leaveAttend() {
  attended = null;
  at("open-ones").replaceChildren();
  at("attended-turns").replaceChildren();
  at("attended").hidden = true;
}

async function showOpen() {
  try {
    const { data } = await (await call("v1/consult")).json();
    const focused = document.activeElement?.dataset?.consultation;
    at("open-ones").replaceChildren(...(data.length ? data.map(openCard) : [make("li", "dim", words.noneOpen)]));
    at("open-ones").querySelector(`[data-consultation="${focused}"]`)?.focus();
  } catch (error) { fail(error); }
}

function openCard(one) {
  const item = make("li", one.status === "urgent" ? "turn urgent" : "turn");
  const button = make("button", "quiet", words.openIt);
  button.type = "button";
  button.dataset.consultation = one.id;
  button.addEventListener("click", () => attend(one.id));
  item.append(make("h3", "", named(one)), make("small", "", words.about(one)), make("br"), button);
  return item;
}

const named = one => [words.statuses[one.status], words.signs[one.red_flag]].filter(Boolean).join(" · ");

async function attend(id) {
  try {
    const told = await (await call(`v1/consult/${id}`)).json();
    attended = null;
    mine = false;
    at("attended-turns").replaceChildren();
    hear(told);
    at("attended").hidden = false;
    at("attended-title").focus();
  } catch (error) { fail(error); }
}

function hear(told) {
  const known = attended?.id === told.id ? attended.num_messages : 0;
  for (const message of told.messages)
    if (message.number >= known) addMessage(message, at("attended-turns"), words.authors.patient);
  const count = Math.max(known, (told.messages.at(-1)?.number ?? -1) + 1);
  attended = { ...told, num_messages: count, messages: [] };
  describe();
}

function describe() {
  if (!attended) return;
  if (attended.status !== "clinician") mine = false;
  at("attended-title").textContent = named(attended);
  at("attended-status").textContent = words.about(attended);
  at("take-over").hidden = mine;
  at("hand-back").hidden = at("reply").hidden = !mine;
}

function speakAttend() {
  if (!at("attend").hidden) showOpen();
  describe();
}

async function act(action, body = {}) {
  try {
    const told = await (await call(`v1/consult/${attended.id}/${action}`, body)).json();
    mine = action !== "hand-back";
    hear(await whole(told, attended.num_messages));
    say("");
    return true;
  } catch (error) {
    if (error.code === "not_attending") { mine = false; describe(); }
    fail(error);
    return false;
  }
}

async function lookIn() {
  if (!at("attend").hidden && !document.hidden) {
    await showOpen();
    if (attended) try {
      const path = `v1/consult/${attended.id}?after=${attended.num_messages}`;
      const told = await (await call(path)).json();
      if (attended?.id === told.id) hear(told);
    } catch (error) {
      if (error.status === 404) { leaveAttend(); say(words.forgotten, true); }
    }
  }
  setTimeout(lookIn, LOOK_MS);
}

at("take-over").addEventListener("click", async () => { if (await act("take-over")) at("words").focus(); });
at("hand-back").addEventListener("click", async () => { if (await act("hand-back")) at("attended-title").focus(); });
at("reply").addEventListener("submit", async event => {
  event.preventDefault();
  const content = at("words").value.trim();
  if (content && await act("reply", { content })) at("words").value = "";
});
at("words").addEventListener("keydown", event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("reply").requestSubmit();
});
lookIn();
