import assert from "node:assert/strict";
import { test } from "node:test";
import { loadChatTemplate, wantsEmptySystemMessage } from "#src/data/chat.js";
import { compileTemplate, pythonStrip, strftime } from "#src/data/jinja-shim.js";
import { createPreparer } from "#src/data/prepare.js";
import { readPreferenceRow, readSftRow } from "#src/data/rows.js";
import { MISTRAL_TEMPLATE } from "#src/data/template-source.js";
import { fixture } from "../support/paths.js";
import { dataConfig, dataError, folderOf } from "./support.js";

const hi = [{ role: "user", content: "Hi" }];
const yo = [{ role: "assistant", content: "Yo" }];

async function rendered(model: string, value: Record<string, unknown>, config = dataConfig()) {
  const preparer = createPreparer(config, fixture("data", model));
  const row = readPreferenceRow({ file: "rows.jsonl", line: 1, value });
  return (await preparer.pair(row)).texts;
}

test("chat: golden strings of a Zephyr-style template", async () => {
  const texts = await rendered("zephyr", { chosen: [...hi, ...yo], rejected: [...hi, ...yo] });
  assert.equal(texts.prompt, "<|system|>\n</s>\n<|user|>\nHi</s>\n");
  assert.equal(texts.chosen, "<|assistant|>\nYo</s>\n");
});

test("chat: golden strings of a Llama-3 template; BOS is stripped from responses only", async () => {
  const texts = await rendered("llama3", { prompt: hi, chosen: yo, rejected: yo });
  assert.equal(
    texts.prompt,
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
  );
  assert.equal(texts.rejected, "<|start_header_id|>assistant<|end_header_id|>\n\nYo<|eot_id|>");
});

test("chat: the empty system message goes to the prompt only, and only where the recipe wants it", async () => {
  const row = { chosen: [...hi, ...yo], rejected: [...hi, ...yo] };
  const on = await rendered("qwen3", row);
  assert.equal(on.prompt, "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n");
  assert.equal(on.chosen, "<|im_start|>assistant\nYo<|im_end|>\n");
  const off = await rendered("qwen3", row, dataConfig({ autoInsertEmptySystemMsg: false }));
  assert.equal(off.prompt, "<|im_start|>user\nHi<|im_end|>\n");
  const own = await rendered("qwen3", {
    chosen: [{ role: "system", content: "S" }, ...hi, ...yo],
    rejected: [...hi, ...yo],
  });
  assert.equal(own.prompt, "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n");
});

test("chat: of a list of named templates the reference searches the names for system messages, not the text", async (t) => {
  const text = "{% for m in messages %}{{ m.role[0] ~ ':' ~ m.content ~ ';' }}{% endfor %}";
  const speaks = `${text}{# system #}`;
  const folder = async (...named: [name: string, template: string][]) => {
    const chat_template = named.map(([name, template]) => ({ name, template }));
    return folderOf(t, { "tokenizer_config.json": JSON.stringify({ chat_template }) });
  };
  for (const [where, reference, corrected] of [
    [await folder(["default", speaks]), false, true],
    [await folder(["tool_use", speaks], ["default", text]), false, false],
    [await folder(["system", "x"], ["default", text]), true, false],
    [await folder(["systems", "x"], ["default", text]), false, false],
    [await folderOf(t, { "chat_template.jinja": speaks }), true, true],
  ] as const) {
    const template = await loadChatTemplate(where, {});
    assert.equal(wantsEmptySystemMessage(template, hi, "reference"), reference);
    assert.equal(wantsEmptySystemMessage(template, hi, "corrected"), corrected);
    const opened = [{ role: "system", content: "S" }, ...hi];
    assert.equal(wantsEmptySystemMessage(template, opened, "reference"), false);
  }
});

test("chat: the responses are the last turns, the prompt is chosen's", async () => {
  const texts = await rendered("zephyr", {
    prompt: "a string prompt is ignored beside message lists",
    chosen: [...hi, ...yo, { role: "user", content: "And?" }, { role: "assistant", content: "A" }],
    rejected: [
      { role: "user", content: "else" },
      { role: "assistant", content: "B" },
    ],
  });
  assert.equal(
    texts.prompt,
    "<|system|>\n</s>\n<|user|>\nHi</s>\n<|assistant|>\nYo</s>\n<|user|>\nAnd?</s>\n",
  );
  assert.equal(texts.chosen, "<|assistant|>\nA</s>\n");
  assert.equal(texts.rejected, "<|assistant|>\nB</s>\n");
});

test("chat: the recipe's template wins over the model's", async () => {
  const chatTemplate =
    "{% for m in messages %}{{ m.role[0] ~ ':' ~ m.content ~ eos_token }}{% endfor %}";
  const texts = await rendered(
    "zephyr",
    { prompt: hi, chosen: yo, rejected: yo },
    dataConfig({ chatTemplate }),
  );
  assert.equal(texts.prompt, "u:Hi</s>");
  assert.equal(texts.chosen, "a:Yo</s>");
});

test("chat: chat_template.jinja wins over tokenizer_config.json; a named list gives its default", async (t) => {
  const config = JSON.stringify({
    chat_template: [
      { name: "tool_use", template: "tools" },
      { name: "default", template: "named {{ eos_token }}" },
    ],
  });
  const named = await folderOf(t, { "tokenizer_config.json": config });
  assert.equal((await loadChatTemplate(named, { eos_token: "E" })).render(hi, "r"), "named E");
  const both = await folderOf(t, {
    "tokenizer_config.json": config,
    "chat_template.jinja": "file\n",
  });
  assert.equal((await loadChatTemplate(both, {})).render(hi, "r"), "file");
});

test("chat: a model without a template gets header lines and EOS, with a notice", async (t) => {
  const folder = await folderOf(t, { "tokenizer_config.json": "{}" });
  const template = await loadChatTemplate(folder, { eos_token: "</s>" });
  assert.equal(template.isDefault, true);
  assert.equal(template.render([...hi, ...yo], "r"), "<|user|>\nHi</s>\n<|assistant|>\nYo</s>\n");
  assert.equal(
    template.render(hi, "r", { addGenerationPrompt: true }),
    "<|user|>\nHi</s>\n<|assistant|>\n",
  );
});

test("chat: a named list without default, and a template that is no text, are refused", async (t) => {
  const list = await folderOf(t, {
    "tokenizer_config.json": '{"chat_template": [{"name": "rag", "template": "x"}]}',
  });
  await assert.rejects(
    loadChatTemplate(list, {}),
    dataError(
      /tokenizer_config\.json: expected a chat template named "default", found "rag"/,
      /recipe/,
    ),
  );
  const number = await folderOf(t, { "tokenizer_config.json": '{"chat_template": 5}' });
  await assert.rejects(
    loadChatTemplate(number, {}),
    dataError(/chat_template: expected text or a list of named templates/),
  );
});

test("chat: a template that does not parse is named", async (t) => {
  const folder = await folderOf(t, { "chat_template.jinja": "{% for m in messages %}" });
  await assert.rejects(
    loadChatTemplate(folder, {}),
    dataError(/chat_template\.jinja: the chat template cannot be read: /, /set chat_template/),
  );
});

test("chat: raise_exception names row, side, template and roles", async () => {
  const chatTemplate = "{{ raise_exception('roles must alternate') }}";
  await assert.rejects(
    rendered("zephyr", { prompt: hi, chosen: yo, rejected: yo }, dataConfig({ chatTemplate })),
    dataError(
      /^rows\.jsonl:1: prompt: the chat template \(chat_template of the recipe\) refuses the messages \(user\): roles must alternate$/,
    ),
  );
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

test("chat: the recipe's template may be a file, from the current directory or the recipe's", async (t) => {
  const baseDir = await folderOf(t, {
    "chat/mine.jinja": "{% for m in messages %}{{ m.content ~ eos_token }}{% endfor %}\n",
  });
  const row = readPreferenceRow({
    file: "rows.jsonl",
    line: 1,
    value: { prompt: hi, chosen: yo, rejected: yo },
  });
  for (const chatTemplate of ["chat/mine.jinja", `${baseDir}/chat/mine.jinja`]) {
    const preparer = createPreparer(dataConfig({ chatTemplate }), fixture("data", "zephyr"), {
      baseDir,
    });
    assert.equal((await preparer.pair(row)).texts.prompt, "Hi</s>");
    assert.match((await preparer.templateToSave()) ?? "", /^{% for m in messages %}/);
  }
  const missing = createPreparer(
    dataConfig({ chatTemplate: "nowhere.jinja" }),
    fixture("data", "zephyr"),
    { baseDir },
  );
  await assert.rejects(
    missing.pair(row),
    dataError(
      /^chat_template: expected a Jinja template \(text with {{ or {%\) or the path of a file with one, found "nowhere\.jinja" and no file at .*nowhere\.jinja or .*nowhere\.jinja$/,
      /correct the path/,
    ),
  );
  const folder = createPreparer(dataConfig({ chatTemplate: "chat" }), fixture("data", "zephyr"), {
    baseDir,
  });
  await assert.rejects(
    folder.pair(row),
    dataError(/^chat_template: .*chat: cannot be read: EISDIR/, /give the path of a text file/),
  );
});

test("chat: model paths with mistral in them get the reference's template, for pairs only", async () => {
  const value = { prompt: hi, chosen: yo, rejected: yo };
  const row = readPreferenceRow({ file: "rows.jsonl", line: 1, value });
  const prepared = async (modelName: string, values: Parameters<typeof dataConfig>[0] = {}) => {
    const preparer = createPreparer(dataConfig(values), fixture("data", "zephyr"), { modelName });
    const { texts } = await preparer.pair(row);
    return { ...texts, notices: preparer.notices, saved: await preparer.templateToSave() };
  };
  for (const name of ["mistralai/Mistral-7B-Instruct-v0.2", "/models/my-MISTRAL-run"]) {
    const { prompt, chosen, notices, saved } = await prepared(name);
    assert.equal(prompt, "[INST] Hi [/INST]");
    assert.equal(chosen, " Yo </s>");
    assert.match(notices.join("\n"), /^model_name_or_path has "mistral" in it, so pairs/);
    assert.match(saved ?? "", /^{{ bos_token }}{%- set system/);
  }
  const zephyr = await prepared("alignment-handbook/zephyr-7b-sft-full");
  assert.equal(zephyr.chosen, "<|assistant|>\nYo</s>\n");
  assert.equal(zephyr.saved, undefined);
  const corrected = await prepared("mistral-x", { dataSemantics: "corrected" });
  assert.equal(corrected.chosen, "Yo</s>");
  const chatTemplate = "{% for m in messages %}{{ m.role }};{% endfor %}";
  assert.equal((await prepared("mistral-x", { chatTemplate })).chosen, "assistant;");

  const sft = createPreparer(dataConfig(), fixture("data", "zephyr"), { modelName: "mistral-x" });
  const messages = { file: "rows.jsonl", line: 1, value: { messages: [...hi, ...yo] } };
  const { text } = await sft.sequence(readSftRow(messages, "text"));
  assert.equal(text, "<|system|>\n</s>\n<|user|>\nHi</s>\n<|assistant|>\nYo</s>\n");
});

test("chat: the reference's template for Mistral puts a system message before the turn behind it", async () => {
  const render = compileTemplate(MISTRAL_TEMPLATE.source);
  const rendered = (messages: unknown) => render({ messages, eos_token: "</s>" });
  const system = { role: "system", content: " Be brief. " };
  assert.equal(
    rendered([system, ...hi, ...yo, ...hi]),
    "[INST] Be brief.\n\nHi [/INST] Yo </s>[INST] Hi [/INST]",
  );
  assert.equal(rendered([{ role: "system", content: "" }, ...hi]), "[INST] Hi [/INST]");
  assert.equal(rendered(yo), " Yo </s>");
  assert.equal(rendered([...hi, system]), "[INST] Hi [/INST]");
});

test("chat: corrected semantics: the header belongs to the prompt, one EOS, and what a template cannot do", async () => {
  const config = { dataSemantics: "corrected", autoInsertEmptySystemMsg: false } as const;
  const row = { prompt: hi, chosen: yo, rejected: yo };
  const zephyr = await rendered("zephyr", row, dataConfig(config));
  assert.deepEqual(zephyr, {
    prompt: "<|user|>\nHi</s>\n<|assistant|>\n",
    chosen: "Yo</s>",
    rejected: "Yo</s>",
  });
  // The text that the template writes before any conversation is there once.
  const qwen = await rendered("qwen2", row, dataConfig(config));
  assert.equal(
    qwen.prompt,
    "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
  );
  assert.equal(qwen.chosen, "Yo<|im_end|>");

  const rewriting =
    "{% for m in messages %}{{ m.role if loop.last else 'x' }};{{ m.content }};{% endfor %}";
  await assert.rejects(
    rendered("zephyr", row, dataConfig({ ...config, chatTemplate: rewriting })),
    dataError(
      /^rows\.jsonl:1: prompt: the chat template \(chat_template of the recipe\) writes the prompt in another way once a response follows: "x;Hi;assistant;Yo;" where it has "user;Hi;" without a response$/,
      /data_semantics: reference/,
    ),
  );

  const other =
    "{% for m in messages %}{{ m.role ~ m.content ~ ';' }}{% endfor %}{% if add_generation_prompt %}bot:{% endif %}";
  const preparer = createPreparer(
    dataConfig({ ...config, chatTemplate: other }),
    fixture("data", "zephyr"),
  );
  const read = readPreferenceRow({ file: "rows.jsonl", line: 1, value: row });
  for (let i = 0; i < 2; i++) {
    const { texts } = await preparer.pair(read);
    assert.deepEqual([texts.prompt, texts.chosen], ["userHi;", "assistantYo;"]);
  }
  const said = preparer.notices.filter((notice) =>
    notice.includes("header of the responses is scored"),
  );
  assert.equal(said.length, 1);
});

test("chat: rendered by the saved template, a prompt has the ids that pairs were trained with", async () => {
  const turns = [...hi, ...yo, { role: "user", content: " And? " }];
  const row = readPreferenceRow({
    file: "rows.jsonl",
    line: 1,
    value: { prompt: turns, chosen: yo, rejected: hi },
  });
  // The first puts a space before a text, but not behind BOS; the others treat both alike.
  for (const model of ["mistral", "zephyr", "llama3"]) {
    const preparer = createPreparer(dataConfig({ maxLength: 512 }), fixture("data", model), {
      modelName: "mistral-x",
    });
    const { ids, labels } = (await preparer.pair(row)).pair.chosen;
    const trained = Array.from(
      ids.subarray(
        0,
        labels.findIndex((label) => label !== -100),
      ),
    );
    const tokenizer = await preparer.tokenizer();
    const render = compileTemplate((await preparer.templateToSave()) ?? "");
    const text = render({ messages: turns, ...tokenizer.specialTokens });
    assert.deepEqual(tokenizer.encode(text, { addSpecialTokens: false }), trained, model);
  }
});
