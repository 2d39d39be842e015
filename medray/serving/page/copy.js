"use strict";
// An answer as plain text for the hospital's own record: quotes with numbers, the sources by number,
// and that a model wrote it, with the id under which the audit log has it.
function forRecord(text, id, grounding) {
  const good = (grounding?.citations ?? []).filter(citation => citation.ok), cited = [];
  const plain = text.replace(CITATION, (whole, _, number, quote) => {
    const citation = good.find(c => c.number === Number(number) && c.quote === quote);
    if (!citation) return whole;
    if (!cited.includes(citation.number)) cited.push(citation.number);
    return `“${quote}”[${cited.indexOf(citation.number) + 1}]`;
  });
  const sources = cited.map((number, place) => {
    const passage = grounding.passages.find(p => p.number === number);
    return `[${place + 1}] ${[passage.title, where(passage)].filter(Boolean).join(" · ")}`;
  });
  if (sources.length) sources.unshift(words.sources);
  else if (grounding && !grounding.retrieval && !grounding.guard) sources.push(words.plain);
  return [plain, ...sources, words.generated(id)].join("\n");
}

// Browsers have a clipboard on https and on this machine only; elsewhere the old way still works.
async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const box = Object.assign(make("textarea", "unseen", text), { readOnly: true });
  document.body.append(box);
  box.select();
  const copied = document.execCommand("copy");
  box.remove();
  if (!copied) throw new Error(words.notCopied);
}
