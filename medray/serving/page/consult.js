"use strict";
// A consultation: the complaint, one question at a time, the judgement. Its id stays in this tab, so
// that a page that is loaded again finds it; what a clinician writes is looked for every few seconds.
const CONSULT = "medray-consult", LOOK_MS = 3000;
let consulting = null;  // the consultation as last told, without its messages
let answering = false;

async function enterConsult() {
  try {
    const { attends } = await (await call("v1/consult")).json();
    at("view-attend").hidden = !attends;
    const id = sessionStorage.getItem(CONSULT);
    if (!id || consulting) return;
    tell(await (await call(`v1/consult/${id}`)).json());
    show("consult");
  } catch (error) { lose(error); }
}

function leaveConsult() {
  sessionStorage.removeItem(CONSULT);
  consulting = null;
  at("view-attend").hidden = true;
  at("consult-turns").replaceChildren();
  at("session").hidden = at("alarm").hidden = true;
  at("open").hidden = false;
}

// A consultation that the service no longer knows is over for the page too.
function lose(error) {
  if (error.status === 404) { leaveConsult(); return say(words.forgotten, true); }
  fail(error);
}

function addMessage(message, list, patient) {
  const asked = message.author === "model" || message.kind === "question";
  const role = message.author === "patient" ? "user" : asked ? "assistant" : message.author;
  const label = message.author === "patient" ? patient : words.authors[message.author];
  const turn = addTurn(message.kind === "urgent" ? "service urgent" : role, label, list);
  turn.body.textContent = message.content;
  if (message.medray) ground(turn, message.content, message.medray);
  if (message.kind === "judgement") addTools(turn, message.content, message.request, message.medray);
}

// What is told of a turn begins with that turn: what came before it unseen is fetched first.
async function whole(told, known) {
  if ((told.messages[0]?.number ?? known) <= known) return told;
  return (await call(`v1/consult/${told.id}?after=${known}`)).json();
}

function tell(told) {
  const known = consulting?.id === told.id ? consulting.num_messages : 0;
  for (const message of told.messages)
    if (message.number >= known) addMessage(message, at("consult-turns"), words.you);
  const urgent = told.messages.findLast(message => message.kind === "urgent");
  if (urgent) alarm(urgent.content.split("\n")[0]);
  if (!told.red_flag) at("alarm").hidden = true;
  const count = Math.max(known, (told.messages.at(-1)?.number ?? -1) + 1);
  consulting = { ...told, num_messages: count, messages: [] };
  sessionStorage.setItem(CONSULT, told.id);
  at("open").hidden = true;
  at("session").hidden = false;
  speakConsult();
}

function alarm(text) {
  const box = at("alarm");
  box.replaceChildren(make("strong", "", words.alarm), make("p", "", text));
  if (words.callNow) box.append(Object.assign(make("a", "", words.callNow), { href: "tel:120" }));
  box.hidden = false;
  box.scrollIntoView({ block: "nearest" });
}

function speakConsult() {
  if (!consulting) return;
  const { status, num_questions } = consulting;
  at("consult-status").textContent = words.consultStatus[status](num_questions);
  at("say-words").hidden = at("say-it").hidden = status === "judged";
  at("answer").required = status !== "judged";
  at("judge").hidden = status !== "asking";
}

// One turn: what the patient says stands at once, the answer grows, then both as the service has them.
async function turn(path, body, box) {
  if (answering) return;
  answering = true;
  const said = body.content && addTurn("user", words.you, at("consult-turns"));
  if (said) said.body.textContent = body.content;
  let grown = null;
  at("open").hidden = true;
  at("session").hidden = false;
  lock(true);
  say(words.consultWorking);
  try {
    let told = null;
    for await (const chunk of chunks(path, body)) {
      if (chunk.object === "consultation") { told = chunk; continue; }
      if (!chunk.content) continue;
      grown ??= addTurn("assistant", words.model, at("consult-turns"));
      grown.body.textContent += chunk.content;
    }
    said?.item.remove();
    grown?.item.remove();
    tell(await whole(told, consulting?.num_messages ?? 0));
    say("");
  } catch (error) {
    said?.item.remove();
    grown?.item.remove();
    if (box && body.content) box.value = body.content;
    if (!consulting) leaveConsult();
    lose(error);
  } finally {
    answering = false;
    lock(false);
    (consulting ? at("answer") : at("complaint")).focus();
  }
}

function lock(locked) {
  for (const name of ["begin", "say-it", "judge", "end"]) at(name).disabled = locked;
}

async function look() {
  if (consulting && !answering && !document.hidden) {
    try {
      const path = `v1/consult/${consulting.id}?after=${consulting.num_messages}`;
      const told = await (await call(path)).json();
      if (!answering && consulting?.id === told.id) tell(told);
    } catch (error) { if (error.status === 404) lose(error); }
  }
  setTimeout(look, LOOK_MS);
}

at("open").addEventListener("submit", event => {
  event.preventDefault();
  const body = { content: at("complaint").value.trim() };
  if (!body.content) return;
  if (at("background").value.trim()) body.background = at("background").value.trim();
  at("complaint").value = "";
  turn("v1/consult", body, at("complaint"));
});
at("say").addEventListener("submit", event => {
  event.preventDefault();
  const content = at("answer").value.trim();
  if (!content || !consulting) return;
  at("answer").value = "";
  turn(`v1/consult/${consulting.id}/messages`, { content }, at("answer"));
});
at("judge").addEventListener("click", () => {
  const content = at("answer").value.trim();
  at("answer").value = "";
  const path = `v1/consult/${consulting.id}/messages`;
  turn(path, content ? { content, judge: true } : { judge: true }, at("answer"));
});
at("end").addEventListener("click", async () => {
  try {
    await call(`v1/consult/${consulting.id}`, undefined, undefined, "DELETE");
    const attends = !at("view-attend").hidden;
    leaveConsult();
    at("view-attend").hidden = !attends;
    say(words.ended);
    at("complaint").focus();
  } catch (error) { lose(error); }
});
for (const [box, form] of [["complaint", "open"], ["answer", "say"]])
  at(box).addEventListener("keydown", event => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at(form).requestSubmit();
  });
look();
