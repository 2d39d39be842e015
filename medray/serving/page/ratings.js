"use strict";
// Blinded rating: a scenario's answers, each scored from 0 to 10, put in order, or both. The page
// does not know whose an answer is. Keys on an answer: digits score, arrows move it, Enter goes on.
const MOST_SCORE = 10;
let judging = null;  // the task as it was told

async function enterRatings() {
  if (!document.body.dataset.ratings) return;
  try {
    tellFar(await (await call("v1/ratings")).json());
    at("view-ratings").hidden = false;
  } catch (error) { if (error.status !== 403) fail(error); }
}

function leaveRatings() {
  judging = null;
  at("view-ratings").hidden = true;
  at("judgement").hidden = true;
  at("to-judge").replaceChildren();
}

async function showTask() {
  if (judging) return;
  try {
    const told = await (await call("v1/ratings/next")).json();
    tellFar(told.progress);
    judging = told.task === null ? null : told;
    at("judgement").hidden = !judging;
    if (!judging) return say(words.allRated);
    at("scenario").textContent = told.scenario;
    at("ranked").checked = false;
    at("to-judge").replaceChildren(...told.answers.map(answerCard));
    describeAll();
    at("scenario-title").focus();
  } catch (error) { fail(error); }
}

function tellFar(far) {
  at("rated-so-far").max = far.total;
  at("rated-so-far").value = far.rated + far.skipped;
  at("rated-so-far").dataset.far = JSON.stringify(far);
  describeFar();
}

function describeFar() {
  const far = at("rated-so-far").dataset.far;
  if (far) at("rated-so-far-words").textContent = words.far(JSON.parse(far));
}

const cards = () => [...at("to-judge").children];
const scoreOf = card => card.querySelector("input[type=radio]:checked")?.value;
const letter = card => String.fromCharCode(65 + Number(card.dataset.index));

function answerCard(text, index) {
  const card = make("li", "turn judged"), scores = make("fieldset", "scores"), tools = make("div", "tools");
  card.tabIndex = 0;
  card.dataset.index = index;
  scores.append(make("legend"));
  for (let score = 0; score <= MOST_SCORE; score++) {
    const label = make("label"), radio = make("input", "unseen");
    Object.assign(radio, { type: "radio", name: `score-${index}`, value: score });
    radio.addEventListener("change", describeAll);
    label.append(radio, make("span", "", score));
    scores.append(label);
  }
  for (const [sign, step] of [["↑", -1], ["↓", 1]]) {
    const button = Object.assign(make("button", "quiet", sign), { type: "button" });
    button.addEventListener("click", () => { move(card, step); button.focus(); });
    tools.append(button);
  }
  tools.append(make("span", "rank dim"));
  const label = make("label"), comment = make("input");
  comment.id = label.htmlFor = `comment-on-${index}`;
  comment.maxLength = 10000;
  card.append(make("h3"), make("p", "", text), scores, tools, label, comment);
  card.addEventListener("keydown", event => onKey(event, card));
  return card;
}

// All that is said about the cards, in the language of now.
function describeAll() {
  describeFar();
  const ranked = at("ranked").checked, all = cards();
  for (const [place, card] of all.entries()) {
    const name = words.answerNamed(letter(card)), score = scoreOf(card);
    const rank = ranked ? words.rank(place + 1) : words.unranked;
    card.querySelector("h3").textContent = name;
    card.querySelector("legend").textContent = words.score;
    card.querySelector(".rank").textContent = rank;
    card.querySelector(":scope > label").textContent = words.comment;
    card.setAttribute("aria-label", [name, score === undefined ? words.unscored : words.scored(score), rank].join("，"));
    const [up, down] = card.querySelectorAll(".tools button");
    up.setAttribute("aria-label", words.moveUp(letter(card)));
    down.setAttribute("aria-label", words.moveDown(letter(card)));
    up.disabled = place === 0;
    down.disabled = place === all.length - 1;
  }
}

function move(card, step) {
  const other = step < 0 ? card.previousElementSibling : card.nextElementSibling;
  if (!other) return;
  if (step < 0) other.before(card); else other.after(card);
  at("ranked").checked = true;
  describeAll();
  say(`${words.answerNamed(letter(card))}：${words.rank(cards().indexOf(card) + 1)}`);
}

function onKey(event, card) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    return at("judgement").requestSubmit();
  }
  if (event.target.id.startsWith("comment-on-") || event.ctrlKey || event.metaKey || event.altKey) return;
  const onCard = event.target === card;
  if (/^\d$/.test(event.key)) {
    // As one types it: 1 and then 0 is 10.
    setScore(card, event.key === "0" && scoreOf(card) === "1" ? "10" : event.key);
  } else if (event.key === "Backspace") setScore(card, null);
  else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
    // On a score too, where they would change it unseen; left and right do.
    move(card, event.key === "ArrowUp" ? -1 : 1);
    event.target.focus();
  } else if (onCard && event.key === "Enter") (card.nextElementSibling ?? at("send-judgement")).focus();
  else return;
  event.preventDefault();
}

function setScore(card, score) {
  for (const radio of card.querySelectorAll("input[type=radio]")) radio.checked = radio.value === score;
  describeAll();
}

// What is sent, in the order in which the answers were shown; null where something is missing.
function judgement() {
  const all = cards(), body = { task: judging.task };
  const inOrder = [...all].sort((a, b) => a.dataset.index - b.dataset.index);
  const unscored = inOrder.filter(card => scoreOf(card) === undefined);
  if (unscored.length && (unscored.length < all.length || !at("ranked").checked)) {
    say(words.scoreAll, true);
    cards().find(card => unscored.includes(card)).focus();
    return null;
  }
  if (!unscored.length) body.scores = inOrder.map(card => Number(scoreOf(card)));
  if (at("ranked").checked) body.ranks = inOrder.map(card => all.indexOf(card) + 1);
  const comments = inOrder.map(card => card.querySelector(":scope > input").value.trim());
  if (comments.some(Boolean)) body.comments = comments;
  return body;
}

async function settle(path, body, told) {
  at("send-judgement").disabled = at("skip-task").disabled = true;
  try {
    await call(path, body);
    judging = null;
    await showTask();
    if (judging) say(told);
  } catch (error) {
    if (error.code === "already_judged") { judging = null; await showTask(); }
    fail(error);
  } finally {
    at("send-judgement").disabled = at("skip-task").disabled = false;
  }
}

at("ranked").addEventListener("change", describeAll);
at("skip-task").addEventListener("click", () => settle("v1/ratings/skip", { task: judging.task }, words.skipped));
at("judgement").addEventListener("submit", event => {
  event.preventDefault();
  const body = judgement();
  if (body) settle("v1/ratings", body, words.rated);
});
