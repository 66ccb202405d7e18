// Shows the description of the API, /api/openapi.json, for people.

import { element } from "./dom.js";

const description = await (await fetch("/api/openapi.json")).json();
const schemas = description.components.schemas;

document.querySelector("#about").replaceChildren(
  `${description.info.description} This description for programs: `,
  element("a", { href: "/api/openapi.json" }, "/api/openapi.json"),
  description.security ? ". Requests need the header “Authorization: Bearer TOKEN”." : ".",
);
document.querySelector("#operations").replaceChildren(
  ...Object.entries(description.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => section(path, method.toUpperCase(), operation))),
);

function section(path, method, operation) {
  const parts = [element("h2", {}, element("code", {}, `${method} ${path}`)), element("p", {}, operation.summary + ".")];
  if (operation.description) parts.push(element("p", {}, operation.description));
  if (operation.parameters) {
    parts.push(table(["Parameter", "In", "Value", "Meaning"], operation.parameters.map((parameter) => [
      element("code", {}, parameter.name), parameter.in, kind(parameter.schema), parameter.description ?? "",
    ])));
  }
  if (operation.requestBody) {
    const types = Object.keys(operation.requestBody.content).join(", ");
    parts.push(element("p", {}, `Body (${types}): ${operation.requestBody.description}`));
  }
  parts.push(table(["Status", "Meaning", "Body"], Object.entries(operation.responses).map(([status, response]) => [
    status, response.description, body(response),
  ])));
  return element("section", { class: "operation" }, ...parts);
}

function body(response) {
  const [type, content] = Object.entries(response.content ?? {})[0] ?? [];
  if (!type) return "";
  return content.schema.$ref?.endsWith("/Problem") ? type : element("code", {}, shape(content.schema));
}

// A schema in short: {"image": string, "faces": [{…}]}
function shape(schema) {
  if (schema.$ref) return shape(schemas[schema.$ref.split("/").pop()]);
  if (schema.allOf) return shape({ type: "object", properties: Object.assign({}, ...schema.allOf.map(properties)) });
  if (schema.type === "array") return `[${shape(schema.items)}, …]`;
  if (schema.properties) {
    return `{${Object.entries(schema.properties).map(([name, value]) => `"${name}": ${shape(value)}`).join(", ")}}`;
  }
  return schema.additionalProperties ? `{name: ${shape(schema.additionalProperties)}, …}` : kind(schema);
}

function properties(schema) {
  return (schema.$ref ? schemas[schema.$ref.split("/").pop()] : schema).properties;
}

function kind(schema) {
  return schema.enum ? schema.enum.join(", ") : schema.const !== undefined ? `"${schema.const}"` : schema.type;
}

function table(heads, rows) {
  const row = (cells, tag) => element("tr", {}, ...cells.map((cell) => element(tag, {}, cell)));
  return element("div", { class: "scroll", tabindex: 0 }, element("table", {},
    element("thead", {}, row(heads, "th")), element("tbody", {}, ...rows.map((cells) => row(cells, "td")))));
}
