"use strict";
// The API's own description as a page: operations, fields, one example each.
const make = (tag, className = "", text = "") =>
  Object.assign(document.createElement(tag), { className, textContent: text });

const kind = schema => schema.$ref ? schema.$ref.split("/").pop()
  : schema.enum ? schema.enum.join(" | ")
  : schema.anyOf ? schema.anyOf.map(kind).filter(name => name !== "null").join(" or ")
  : schema.type === "array" ? `list of ${kind(schema.items ?? {})}` : schema.type ?? "any";

function fields(schema) {
  const table = make("table"), head = table.createTHead().insertRow();
  for (const name of ["field", "type", ""]) head.append(make("th", "", name));
  for (const [name, field] of Object.entries(schema.properties ?? {})) {
    const row = table.insertRow();
    const needed = (schema.required ?? []).includes(name) ? " *" : "";
    row.insertCell().append(make("code", "", name + needed));
    row.insertCell().textContent = kind(field);
    row.insertCell().textContent = field.description ?? "";
  }
  return table;
}

function card(path, method, operation, schemas) {
  const item = make("section", "turn");
  item.append(make("h2", "", `${method.toUpperCase()} ${path}`), make("p", "", operation.description ?? ""));
  const body = operation.requestBody?.content["application/json"]?.schema;
  const schema = body?.$ref ? schemas[body.$ref.split("/").pop()] : body;
  if (!schema) return item;
  item.append(fields(schema));
  for (const example of schema.examples ?? []) {
    const command = `curl ${location.origin}${path} -H 'Content-Type: application/json' \\\n` +
      `  -H "Authorization: Bearer $MEDRAY_API_KEY" \\\n  -d '${JSON.stringify(example)}'`;
    item.append(make("pre", "", command));
  }
  return item;
}

fetch("openapi.json").then(response => response.json()).then(({ paths, components }) => {
  for (const [path, operations] of Object.entries(paths))
    for (const [method, operation] of Object.entries(operations))
      document.getElementById("operations").append(card(path, method, operation, components.schemas));
});
