import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { readEvents } from "../report/event-file.js";
import { fixture, root } from "../support/paths.js";

const dir = mkdtempSync(path.join(os.tmpdir(), "simper-recipes-"));
after(() => rmSync(dir, { recursive: true }));
const cli = path.join(root, "dist/cli.js");
const model = path.join(root, "configs/quickstart/model");

/** Rows enough for two steps of 32 pairs. */
const data = path.join(dir, "data");
mkdirSync(data);
for (const [split, rows] of [
  ["train", 70],
  ["test", 12],
] as const) {
  const all = readFileSync(path.join(root, `configs/quickstart/data/${split}.jsonl`), "utf8");
  writeFileSync(path.join(data, `${split}.jsonl`), all.split("\n").slice(0, rows).join("\n"));
}
const small = [
  ...["--model_name_or_path", model],
  ...["--dataset_mixer", `{${data}: 1.0}`],
  ...["--dataset_splits", "[train, test]"],
  ...["--max_steps", "2"],
];

/** Runs the command line with a PATH of one folder; by default an empty one, so without any wandb. */
function run(words: string[], programs = path.join(dir, "no-programs")) {
  const env = { ...process.env, PATH: programs };
  return spawnSync(process.execPath, [cli, ...words], { encoding: "utf8", cwd: dir, env });
}

const rates = {
  "llama-3-8b-base": 6e-7,
  "llama-3-8b-instruct": 1e-6,
  "mistral-7b-base": 3e-7,
  "mistral-7b-instruct": 5e-7,
};

for (const [name, rate] of Object.entries(rates)) {
  test(`configs/${name}-simper.yaml trains with nothing overridden but model, data and max_steps`, () => {
    const recipe = path.join(root, "configs", `${name}-simper.yaml`);
    const { status, stderr } = run(["train", recipe, ...small]);
    assert.equal(status, 0, stderr);
    const [notice, ...rest] = stderr.split("\n");
    assert.match(notice!, /^simper-native: accepted, no effect: attn_implementation \(/);
    assert.ok(rest.every((line) => !line.includes("no effect")));
    assert.match(stderr, /report_to: wandb is not installed here; .* wandb sync outputs/);

    const output = path.join(dir, "outputs", `${name}-simper`);
    assert.ok(existsSync(path.join(output, "model.safetensors")));
    const records = readFileSync(path.join(output, "metrics.jsonl"), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as Record<string, number>);
    assert.deepEqual(
      records.map(({ step, eval_loss }) => [step, eval_loss === undefined]),
      [
        [1, true],
        [2, true],
        [2, false],
      ],
    );
    // ceil(0.1 · 2) steps of warm-up: the first at 0, the second at the peak.
    assert.deepEqual([records[0]!.learning_rate, records[1]!.learning_rate], [0, rate]);
    assert.ok(records.every((record) => Number.isFinite(record.loss ?? record.eval_loss)));

    const [folder] = readdirSync(path.join(output, "runs"));
    const runs = path.join(output, "runs", folder!);
    const events = readEvents(path.join(runs, readdirSync(runs)[0]!));
    const losses = events.flatMap(({ step, scalars }) => ("train/loss" in scalars ? [step] : []));
    assert.deepEqual(losses, [2]);
  });
}

test("a recipe spelled as the published ones are trains the same", () => {
  const name = "mistral-7b-instruct";
  const ours = readFileSync(path.join(root, "configs", `${name}-simper.yaml`), "utf8");
  const published = ours
    .replace("eval_strategy:", "evaluation_strategy:")
    .replace("dataset_splits: [train, test]", "dataset_splits:\n- train\n- test")
    .replace("report_to: [wandb]", "report_to:\n- wandb")
    .replace("use_reentrant: false", "use_reentrant: False")
    .replace("save_strategy: steps", 'save_strategy: "steps"')
    .replace(/^loss_type: .*\n/m, "")
    .replace("learning_rate: 5.0e-7", "learning_rate: '5e-07'");
  writeFileSync(path.join(dir, "published.yaml"), published);
  const out = (folder: string) => ["--output_dir", path.join(dir, folder)];
  for (const [file, folder] of [
    [path.join(root, "configs", `${name}-simper.yaml`), "a"],
    [path.join(dir, "published.yaml"), "b"],
  ] as const) {
    const { status, stderr } = run(["train", file, ...small, ...out(folder)]);
    assert.equal(status, 0, stderr);
  }
  const weights = (folder: string) => readFileSync(path.join(dir, folder, "model.safetensors"));
  assert.ok(weights("a").equals(weights("b")));
  assert.notDeepEqual(weights("a"), readFileSync(path.join(model, "model.safetensors")));
});

test("tokenizer_name_or_path: another folder's tokenizer is used, and saved with the model", () => {
  const tokenizer = fixture("data", "llama3");
  const bare = path.join(dir, "bare");
  mkdirSync(bare);
  for (const file of ["config.json", "generation_config.json", "model.safetensors"]) {
    cpSync(path.join(model, file), path.join(bare, file));
  }
  const recipe = path.join(root, "configs", "quickstart.yaml");
  const words = [
    ...["train", recipe, "--model_name_or_path", bare, "--dataset_mixer", `{${data}: 1.0}`],
    ...["--max_steps", "1", "--do_eval", "false", "--eval_strategy", "no"],
  ];
  const output = path.join(dir, "tokenized");
  const missing = run([...words, "--output_dir", output]);
  assert.match(missing.stderr, /bare: expected a tokenizer, found no tokenizer\.json/);
  const named = [...words, "--output_dir", output, "--tokenizer_name_or_path", model];
  const { status, stderr } = run(named);
  assert.equal(status, 0, stderr);
  for (const file of ["tokenizer.json", "tokenizer_config.json"]) {
    const saved = readFileSync(path.join(output, file), "utf8");
    assert.equal(saved, readFileSync(path.join(model, file), "utf8"));
  }
  assert.ok(existsSync(path.join(output, "generation_config.json")));
  const inspect = run([
    ...["inspect", recipe, "--dataset_mixer", `{${data}: 1.0}`],
    ...["--tokenizer_name_or_path", tokenizer],
  ]);
  assert.match(inspect.stdout, /<\|start_header_id\|>/);
});

test("a training that fails does not wait for wandb, and one that ends does", () => {
  const bin = path.join(dir, "bin");
  mkdirSync(bin);
  const ended = path.join(dir, "wandb-ended");
  const linger = (ms: number) => {
    const program = `#!${process.execPath}
if (process.argv[3].startsWith("import importlib")) process.exit(0);
process.stdin.resume().on("end", () => setTimeout(() => {
  require("node:fs").writeFileSync(${JSON.stringify(ended)}, "");
}, ${ms}));
`;
    writeFileSync(path.join(bin, "python3"), program, { mode: 0o755 });
  };
  const recipe = path.join(root, "configs", "quickstart.yaml");
  const words = [
    ...["train", recipe, "--dataset_mixer", `{${data}: 1.0}`, "--max_steps", "2"],
    ...["--do_eval", "false", "--eval_strategy", "no", "--report_to", "wandb"],
    ...["--output_dir", path.join(dir, "lingering")],
  ];
  linger(20_000);
  const failed = run([...words, "--learning_rate", "1e38", "--warmup_ratio", "0"], bin);
  assert.notEqual(failed.status, 0);
  assert.match(failed.stderr, /expected finite numbers/);
  assert.ok(!existsSync(ended), "the command waited for its reporter");
  linger(500);
  const done = run(words, bin);
  assert.equal(done.status, 0, done.stderr);
  assert.ok(existsSync(ended), "the command did not wait for what it had to report");
});

test("save_steps below 1 is a share of the run", () => {
  const recipe = path.join(root, "configs", "quickstart.yaml");
  const words = ["--dataset_mixer", `{${data}: 1.0}`, "--max_steps", "2", "--do_eval", "false"];
  const saves = ["--save_strategy", "steps", "--save_steps", "0.5", "--eval_strategy", "no"];
  const output = path.join(dir, "shares");
  const { status, stderr } = run(["train", recipe, ...words, ...saves, "--output_dir", output]);
  assert.equal(status, 0, stderr);
  assert.deepEqual(
    readdirSync(output).filter((name) => name.startsWith("checkpoint-")),
    ["checkpoint-1", "checkpoint-2"],
  );
});

test("plan and train read a file of accelerate config and name it in their help", () => {
  const file = path.join(dir, "accelerate.yaml");
  writeFileSync(file, "num_processes: 4\nmixed_precision: bf16\n");
  const recipe = path.join(root, "configs", "llama-3-8b-base-simper.yaml");
  const { status, stdout, stderr } = run(["plan", recipe, ...small, "--accelerate_config", file]);
  assert.equal(status, 0, stderr);
  assert.match(stderr, /asks for 4 processes and one runs: .* 32 examples, not 128; .* 64\n/);
  assert.match(stdout, /examples per step {3}32\n/);
  for (const command of ["plan", "train"]) {
    assert.match(run([command, "--help"]).stdout, /--accelerate_config <file\.yaml>/);
  }
});
