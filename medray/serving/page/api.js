"use strict";
// The HTTP API as the page uses it. The key lives in this tab alone and goes nowhere but here.
const KEY = "medray-key";

class Refused extends Error {
  constructor(status, message, code) { super(message); this.status = status; this.code = code; }
}

async function call(path, body, signal, method = body === undefined ? "GET" : "POST") {
  const file = body instanceof Blob;
  const headers = { "Content-Type": file ? "application/octet-stream" : "application/json" };
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  const response = await fetch(path, {
    method, headers, signal,
    body: body === undefined || file ? body : JSON.stringify(body),
  });
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  throw new Refused(response.status, told?.error?.message ?? `HTTP ${response.status}`, told?.error?.code);
}

async function* chunks(path, body, signal) {
  const response = await call(path, { ...body, stream: true }, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.slice("data: ".length);
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Refused(503, chunk.error.message, chunk.error.code);
      yield chunk;
    }
  }
}
