"use strict";
// The patient's record beside a question: a file that is dropped or chosen, or text that is pasted, read
// by the service, shown with its abnormal results marked, and sent with each question until it is taken
// away. It stays in this page's memory.
const MOST_CHARS = Number(document.body.dataset.recordChars);
const MOST_FILE_BYTES = 40 * MOST_CHARS;  // what the service reads: ten times as many characters
let attached = null;  // {record, abnormal} as the service read it
let basisBefore = "auto";  // what was chosen before a record came

const charsOf = section => [...section.heading, ...section.text].length;
const attachedChars = () => attached.record.sections.reduce((sum, section) => sum + charsOf(section), 0);

// What a question sends of it. Once seen and sent it is folded away.
function withRecord() {
  at("record-shown").open = false;
  return attached ? { record: attached.record } : {};
}

// Text that was pasted stays to be mended where it cannot be read.
async function readFile(file) {
  if (file.size > MOST_FILE_BYTES) return say(words.fileTooLong(MOST_CHARS), true);
  say(words.reading);
  try {
    const read = await (await call("v1/record", file)).json();
    attached = { record: read.record, abnormal: read.abnormal };
    at("pasted").value = "";
    at("record-paste").open = false;
    showRecord();
    at("record-shown").open = true;
    at("record-summary").focus();
    say("");
  } catch (error) {
    if (error.status === 413) return say(words.fileTooLong(MOST_CHARS), true);
    if (words.fileFaults[error.code]) return say(words.fileFaults[error.code], true);
    fail(error);
  }
}

// `open`: which of the sections stand open; without it, those with an abnormal result.
function showRecord(open = []) {
  at("record-shown").hidden = at("record-away").hidden = !attached;
  const basis = at("retrieval");
  if (attached && !basis.disabled) [basisBefore, basis.value] = [basis.value, "sources"];
  if (!attached && basis.disabled) basis.value = basisBefore;
  basis.disabled = Boolean(attached);  // a record is shown to the model as a source
  at("record-sections").replaceChildren(...(attached?.record.sections ?? []).map(
    (section, number) => sectionCard(section, number, open[number])));
  describeRecord();
}

function describeRecord() {
  at("record-hint").textContent = words.recordHint(MOST_CHARS);
  if (!attached) return;
  const chars = attachedChars(), long = chars > MOST_CHARS;
  at("record-summary").textContent = words.recordSummary(attached.abnormal.length, chars, MOST_CHARS) +
    (long ? words.recordTooLong : "");
  at("record-summary").classList.toggle("bad", long);
}

function sectionCard(section, number, open) {
  const item = make("li", "turn"), details = make("details"), summary = make("summary");
  const here = attached.abnormal.filter(result => result.section === number);
  const title = [section.heading || words.noHeading, section.date].filter(Boolean).join(" · ");
  summary.append(make("strong", "", title));
  if (here.length) summary.append(" ", make("span", "count", words.numAbnormal(here.length)));
  details.open = open ?? here.length > 0;
  const text = make("p");
  text.append(...markedResults(section.text, here));
  const away = Object.assign(make("button", "quiet", words.leaveOut), { type: "button" });
  away.setAttribute("aria-label", `${words.leaveOut}：${title}`);
  away.addEventListener("click", () => leaveOut(number));
  details.append(summary, text, away);
  item.append(details);
  return item;
}

// Offsets are of code points, which a rare character is one of and JavaScript counts as two.
function markedResults(text, results) {
  const points = [...text], parts = [];
  let end = 0;
  for (const result of results) {
    const mark = make("mark", result.direction, points.slice(result.start, result.end).join(""));
    mark.append(make("small", "", ` ${words.directions[result.direction]}`));
    parts.push(points.slice(end, result.start).join(""), mark);
    end = result.end;
  }
  return [...parts, points.slice(end).join("")];
}

function leaveOut(number) {
  attached.record.sections.splice(number, 1);
  attached.abnormal = attached.abnormal
    .filter(result => result.section !== number)
    .map(result => ({ ...result, section: result.section - (result.section > number) }));
  if (!attached.record.sections.length) return takeAway();
  const open = opened();
  open.splice(number, 1);
  showRecord(open);
  at("record-summary").focus();
}

const opened = () => [...at("record-sections").querySelectorAll("details")].map(details => details.open);

function takeAway() {
  attached = null;
  at("record-file").value = at("pasted").value = "";
  at("record-paste").open = false;
  showRecord();
}

function speakRecord() {
  showRecord(opened());
}

at("record-file").addEventListener("change", () => {
  const [file] = at("record-file").files;
  at("record-file").value = "";  // the same file may be chosen again
  if (file) readFile(file);
});
at("paste").addEventListener("submit", event => {
  event.preventDefault();
  readFile(new Blob([at("pasted").value]));
});
at("pasted").addEventListener("keydown", event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("paste").requestSubmit();
});
at("record-away").addEventListener("click", () => { takeAway(); at("question").focus(); });
for (const [type, over] of [["dragover", true], ["dragleave", false], ["drop", false]])
  at("chat").addEventListener(type, event => {
    if (type !== "dragleave" && ![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();  // else the browser opens the file in the page's place
    at("chat").classList.toggle("over", over);
    if (type !== "drop") return;
    const files = event.dataTransfer.files;
    if (files.length > 1) return say(words.oneFile, true);
    if (files.length) readFile(files[0]);
  });
