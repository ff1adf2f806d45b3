import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { compileTemplate } from "#src/data/jinja-shim.js";
import { fixture } from "../support/paths.js";

/** Written by test/fixtures/data/make_templates.py with transformers and Jinja2; null is an error. */
interface Templates {
  readonly variables: Record<string, unknown>;
  readonly cases: readonly [template: string, text: string | null][];
  readonly conversations: readonly unknown[];
  readonly families: readonly [
    family: string,
    conversation: number,
    generate: boolean,
    thinking: boolean | null,
    text: string | null,
  ][];
}

const expected = JSON.parse(readFileSync(fixture("data", "templates.json"), "utf8")) as Templates;

test("jinja: what chat templates use renders as transformers renders it, and fails where that fails", () => {
  for (const [template, text] of expected.cases) {
    const render = () => compileTemplate(template)(expected.variables);
    if (text === null) assert.throws(render, Error, template);
    else assert.equal(render(), text, template);
  }
});

test("jinja: templates built like those of the families, with thoughts and generation prompts", () => {
  for (const [family, i, generate, thinking, text] of expected.families) {
    const template = readFileSync(fixture("data", "templates", `${family}.jinja`), "utf8");
    const render = () =>
      compileTemplate(template)({
        messages: expected.conversations[i],
        tools: null,
        documents: null,
        add_generation_prompt: generate,
        bos_token: "<s>",
        eos_token: "</s>",
        ...(thinking === null ? {} : { enable_thinking: thinking }),
      });
    const what = `${family}, conversation ${i}`;
    if (text === null) assert.throws(render, Error, what);
    else assert.equal(render(), text, what);
  }
});
