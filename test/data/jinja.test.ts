import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { pythonStrip } from "#src/data/jinja/methods.js";
import { strftime } from "#src/data/jinja/strftime.js";
import { compileTemplate } from "#src/data/jinja/template.js";
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
    tools: boolean,
    thinking: boolean | null,
    text: string | null,
  ][];
}

const expected = JSON.parse(readFileSync(fixture("data", "templates.json"), "utf8")) as Templates;

test("jinja: every construct renders as transformers renders it, and fails where that fails", () => {
  for (const [template, text] of expected.cases) {
    const render = () => compileTemplate(template)(expected.variables);
    if (text === null) assert.throws(render, Error, template);
    else assert.equal(render(), text, template);
  }
});

test("jinja: templates built like those of the families, with tools, thoughts and generation prompts", () => {
  for (const [family, i, generate, tools, thinking, text] of expected.families) {
    const template = readFileSync(fixture("data", "templates", `${family}.jinja`), "utf8");
    const render = () =>
      compileTemplate(template)({
        messages: expected.conversations[i],
        tools: tools ? expected.variables.tools : null,
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

test("jinja: what cannot be read is named with its line", () => {
  const refused = (template: string, message: RegExp) =>
    assert.throws(() => compileTemplate(template), { name: "SyntaxError", message });
  refused(
    "a\n{% for m in messages %}\nb",
    /^line 3: expected {% else %} or {% endfor %}, found the end$/,
  );
  refused("a\n\n{{ x", /^line 3: {{ without }}$/);
  refused("{{ 'x }}", /^line 1: unexpected "'x }}"$/);
  refused("{% nonsense %}", /^line 1: unknown tag "nonsense"$/);
  refused("{{ (1 }}", /^line 1: unexpected "}"$/);
  refused("{% break %}", /^line 1: {% break %} outside of a loop$/);
  refused("{% raw %}x", /^line 1: {% raw %} without {% endraw %}$/);
  refused("{% call 1 %}{% endcall %}", /needs a call$/);
});

test("jinja: what fails while rendering says what it was", () => {
  const failing = (template: string, message: RegExp) =>
    assert.throws(() => compileTemplate(template)({ x: 1, list: [1] }), { message });
  failing("{{ raise_exception('roles must alternate') }}", /^roles must alternate$/);
  failing("{{ nothing.role }}", /^an undefined value has no attribute "role"$/);
  failing("{{ 'a' + x }}", /^str \+ int is not possible$/);
  failing("{{ x() }}", /^a int cannot be called$/);
  failing("{{ x | nonsense }}", /^no filter named "nonsense"$/);
  failing("{{ x is nonsense }}", /^no test named "nonsense"$/);
  failing("{% for a, b in [list] %}{% endfor %}", /^expected 2 values to unpack, found 1$/);
  failing("{{ list.append(2) }}", /cannot be called$/);
  failing("{{ range(1000000) }}", /^range: too long/);
});

test("jinja: a macro may call itself from a block that is filtered", () => {
  const template =
    "{% macro f(n) %}{% set t | upper %}a{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endset %}[{{ t }}]{% endmacro %}{{ f(2) }}";
  assert.equal(compileTemplate(template)({}), "[A2[A1[A0]]]");
});

test("jinja: strip, lstrip, rstrip and trim are Python's", () => {
  assert.equal(pythonStrip("strip", "xxaxx", "x"), "a");
  assert.equal(pythonStrip("lstrip", "-]a-]", "]-"), "a-]");
  assert.equal(pythonStrip("rstrip", "\n a \n", "\n"), "\n a ");
  assert.equal(pythonStrip("strip", "a", ""), "a");
  assert.equal(pythonStrip("strip", "😀a😀", "😀"), "a");
  assert.equal(pythonStrip("strip", "\ufeff\x1ca\x85\u3000"), "\ufeff\x1ca");
  assert.equal(pythonStrip("strip", `a${" ".repeat(3000)}`), "a");
  const run = compileTemplate(
    "{{ x.strip() }}|{{ x | trim }}|{{ x.lstrip('\\n') }}|{{ x.upper() }}",
  );
  assert.equal(run({ x: "\n\x1c a\ufeff " }), "a\ufeff|a\ufeff|\x1c a\ufeff |\n\x1c A\ufeff ");
});

test("jinja: line ends become LF, blocks are trimmed, Python's globals exist", () => {
  const run = compileTemplate(
    "a\r\n  {% if true %}\r\nb\r\n  {% endif %}\r\n{{ range(3) | join(',') }} {{ range(2, 8, 3) | join(',') }}\r\n",
  );
  assert.equal(run({}), "a\nb\n0,1,2 2,5");
});

test("jinja: strftime_now is English and covers what templates use", () => {
  const date = new Date(2024, 6, 5, 15, 4, 9);
  assert.equal(strftime(date, "%d %b %Y"), "05 Jul 2024");
  assert.equal(
    strftime(date, "%A %a %B %y %H:%M:%S %I %p %% %q"),
    "Friday Fri July 24 15:04:09 03 PM % %q",
  );
  const now = compileTemplate("{{ strftime_now('%Y') }}")({});
  assert.equal(now, String(new Date().getFullYear()));
});
