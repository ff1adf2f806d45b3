import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { describeError, recipeArguments, recipeCommand } from "#src/cli/shared.js";
import type { Recipe } from "#src/config/load.js";
import { CheckpointError, ConfigError } from "#src/errors.js";
import { root } from "../support/paths.js";

const dir = mkdtempSync(path.join(os.tmpdir(), "simper-cli-"));
after(() => rmSync(dir, { recursive: true }));
const cli = path.join(root, "dist/cli.js");

function run(
  words: string[],
  env: NodeJS.ProcessEnv = {},
): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [cli, ...words], {
    encoding: "utf8",
    env: { ...process.env, ...env },
    cwd: dir,
  });
}

test("help and version end well, and list every command", () => {
  const help = run(["--help"]);
  assert.equal(help.status, 0);
  for (const name of ["train", "plan", "inspect", "score", "generate", "env", "build"]) {
    assert.match(help.stdout, new RegExp(`^ {2}${name} {2,}\\w`, "m"));
  }
  assert.match(help.stdout, /Example:\n {2}simper-native train /);
  const version = run(["--version"]);
  assert.equal(version.status, 0);
  assert.match(version.stdout, /^\d+\.\d+\.\d+\n$/);
});

for (const name of ["train", "plan", "inspect", "score", "generate", "env", "build"]) {
  test(`${name} --help shows an example`, () => {
    const help = run([name, "--help"]);
    assert.equal(help.status, 0, help.stderr);
    assert.match(help.stdout, new RegExp(`Usage: simper-native ${name} `));
    assert.match(help.stdout, new RegExp(`Examples?:\\n(.*\\n)*.*simper-native ${name}`));
    assert.equal(run(["help", name]).stdout, help.stdout);
  });
}

test("wrong usage ends with 2 and names what was meant", () => {
  const unknown = run(["trian"]);
  assert.equal(unknown.status, 2);
  assert.match(unknown.stderr, /^simper-native: unknown command 'trian'\n\(Did you mean train\?\)/);
  const option = run(["env", "--jsno"]);
  assert.equal(option.status, 2);
  assert.match(option.stderr, /^simper-native: unknown option '--jsno'\n\(Did you mean --json\?\)/);
  assert.equal(run([]).status, 2);
});

test("a recipe that cannot be used ends with 2, without a stack", () => {
  const recipe = path.join(dir, "my-run.yaml");
  writeFileSync(recipe, "model_name_or_path: m\ndataset_mixer: {a.jsonl: 1.0}\nlearning_rte: 1\n");
  const plan = run(["plan", "my-run.yaml"]);
  assert.equal(plan.status, 2);
  assert.equal(
    plan.stderr,
    'simper-native: my-run.yaml:3:1  learning_rte: unknown key (did you mean "learning_rate"?)\n',
  );
  const missing = run(["plan", "none.yaml"]);
  assert.equal(missing.status, 2);
  assert.match(
    missing.stderr,
    /^simper-native: none\.yaml: cannot read the recipe: there is no such file\n {2}Give the path/,
  );
  for (const verbose of [
    run(["plan", "--verbose", "none.yaml"]),
    run(["plan", "none.yaml"], { SIMPER_VERBOSE: "1" }),
  ]) {
    assert.equal(verbose.status, 2);
    assert.match(verbose.stderr, /\n {4}at .*load/);
    assert.match(verbose.stderr, /caused by: Error: ENOENT/);
  }
});

test("env prints a line for everything, also where the addon is not built", () => {
  const bare = run(["env"], { SIMPER_NATIVE_BINDING: path.join(dir, "none.node") });
  assert.equal(bare.status, 0);
  assert.match(bare.stdout, /^Node {5}\d+\./m);
  assert.match(
    bare.stdout,
    /^Addon {4}the native addon is not there:\n {11}.*none\.node: no such file\n.*npx simper-native build$/m,
  );
  for (const name of ["CUDA", "NCCL", "MPI"])
    assert.match(bare.stdout, new RegExp(`^${name} +no: not known before`, "m"));
  const json = run(["env", "--json"], { SIMPER_NATIVE_BINDING: path.join(dir, "none.node") });
  const environment = JSON.parse(json.stdout) as {
    node: string;
    addon: { error: string };
    backends: object[];
  };
  assert.equal(environment.node, process.versions.node);
  assert.match(environment.addon.error, /none\.node/);
  assert.equal(environment.backends.length, 3);
});

test("env describes the addon that the tests run with", () => {
  const full = run(["env", "--json"]);
  const { addon, cpu, backends } = JSON.parse(full.stdout) as {
    addon: { path: string };
    cpu: { isa: string; threads: number; bf16: boolean };
    backends: { name: string; available: boolean; detail: string }[];
  };
  assert.match(addon.path, /simper_native\.node$/);
  assert.ok(cpu.isa.length > 0 && cpu.threads >= 1);
  assert.deepEqual(
    backends.map(({ name }) => name),
    ["CUDA", "NCCL", "MPI"],
  );
  for (const { detail } of backends) assert.notEqual(detail, "");
  const text = run(["env"]).stdout;
  assert.ok(text.includes(addon.path) && text.includes(cpu.isa));
});

test("a reader that leaves early is no error", async () => {
  const child = spawn(process.execPath, [cli, "env", "--json"], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  child.stdout.destroy();
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const [code] = (await once(child, "close")) as [number];
  assert.equal(stderr, "");
  assert.equal(code, 0);
});

test("our errors print their hint and end with their code, others ask for --verbose", () => {
  assert.deepEqual(describeError(new ConfigError("a.yaml: bad", { hint: "do this" })), {
    text: "simper-native: a.yaml: bad\n  do this\n",
    exitCode: 2,
  });
  assert.equal(describeError(new CheckpointError("x")).exitCode, 1);
  assert.deepEqual(describeError(new TypeError("odd")), {
    text: "simper-native: odd\n  run again with --verbose for details\n",
    exitCode: 1,
  });
});

test("the recipe is found wherever it stands", () => {
  const cases: [string[], string, string[]][] = [
    [["r.yaml", "--seed", "1"], "r.yaml", ["--seed", "1"]],
    [["--seed", "1", "r.yaml", "--bf16"], "r.yaml", ["--seed", "1", "--bf16"]],
    [["--seed=1", "r.yaml"], "r.yaml", ["--seed=1"]],
    [["--bf16", "--seed", "-1", "r.yaml"], "r.yaml", ["--bf16", "--seed", "-1"]],
  ];
  for (const [words, file, overrides] of cases)
    assert.deepEqual(recipeArguments(words), { file, overrides });
  assert.throws(() => recipeArguments(["--bf16", "r.yaml"]), {
    message: "expected a recipe file, received only overrides: --bf16 r.yaml",
  });
});

test("a recipe command passes its own options and the overrides, and recognises a mistyped option", async () => {
  const file = path.join(dir, "good.yaml");
  writeFileSync(
    file,
    "model_name_or_path: m\ndataset_mixer: {a.jsonl: 1.0}\nmax_length: 9\nmax_prompt_length: 4\n",
  );
  const seen: { recipe: Recipe; options: unknown }[] = [];
  const make = () =>
    recipeCommand("plan", (recipe, options) => void seen.push({ recipe, options })).option(
      "--device <name>",
      "d",
      "auto",
    );
  await make().parseAsync([file, "--learning_rate", "1e-6", "--device", "cpu", "--max_steps=-1"], {
    from: "user",
  });
  await make().parseAsync(["--bf16", "true", "--device", "cpu", file], { from: "user" });
  assert.equal(seen[0]!.recipe.config.learningRate, 1e-6);
  assert.equal(seen[0]!.recipe.config.maxSteps, -1);
  assert.deepEqual(seen[0]!.options, { device: "cpu" });
  assert.equal(seen[1]!.recipe.config.bf16, true);
  await assert.rejects(make().parseAsync([file, "--devise", "cpu"], { from: "user" }), {
    message: '--devise: unknown key (did you mean "--device"?)',
  });
});
