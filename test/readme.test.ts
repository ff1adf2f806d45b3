import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import * as yaml from "js-yaml";
import { loadRecipe } from "#src/config/load.js";
import { root } from "./support/paths.js";

const readme = readFileSync(path.join(root, "README.md"), "utf8");

/** Contents of the fenced blocks of a language, in order. */
function blocks(language: string): string[] {
  const fenced = readme.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm);
  return [...fenced].filter(([, name]) => name === language).map(([, , text]) => text!.trimEnd());
}

test("readme: its first two commands are one line each, the main job and the tests", () => {
  const [main = "", tests = ""] = blocks("bash");
  for (const command of [main, tests])
    assert.ok(command !== "" && !command.includes("\n"), command);
  assert.match(main, /quickstart/);
  assert.match(tests, /npm test/);
});

test("readme: its recipe is a recipe without remarks", () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), "simper-readme-"));
  try {
    const file = path.join(dir, "my-run.yaml");
    writeFileSync(file, blocks("yaml")[0]!);
    const { config, notices } = loadRecipe(file);
    assert.deepEqual(notices, []);
    assert.equal(config.perDeviceTrainBatchSize * config.gradientAccumulationSteps, 128);
  } finally {
    rmSync(dir, { recursive: true });
  }
});

test("readme: the commands it shows exist, and all that exist are shown", () => {
  const shown = new Set([...readme.matchAll(/npx simper-native (\w+)/g)].map((match) => match[1]!));
  const help = spawnSync(process.execPath, [path.join(root, "dist/cli.js"), "--help"], {
    encoding: "utf8",
  }).stdout;
  const list = help.slice(help.indexOf("Commands:"), help.indexOf("Example:"));
  const commands = [...list.matchAll(/^ {2}(\w+)/gm)].map((match) => match[1]!);
  assert.deepEqual([...shown].sort(), commands.filter((name) => name !== "help").sort());
});

test("docs: links between pages lead to files", () => {
  const docs = readdirSync(path.join(root, "docs")).filter((name) => name.endsWith(".md"));
  const pages = ["README.md", "CONTRIBUTING.md", "native/README.md"];
  pages.push(...docs.map((name) => `docs/${name}`));
  for (const page of pages) {
    const text = readFileSync(path.join(root, page), "utf8");
    for (const [, target = ""] of text.matchAll(/\]\(([^)#]+)\)/g)) {
      if (/^https?:/.test(target)) continue;
      assert.ok(existsSync(path.join(root, path.dirname(page), target)), `${page}: ${target}`);
    }
  }
});

test("docs: the scaling table of distributed.md is what its command prints", () => {
  const text = readFileSync(path.join(root, "docs/distributed.md"), "utf8");
  const [, command = "", table = ""] =
    /```bash\nnpx simper-native (plan[^`]*--scaling)\n```\n\n```\n([^`]*)```/.exec(text) ?? [];
  const words = command.replaceAll("\\\n", " ").split(/\s+/);
  const run = spawnSync(process.execPath, [path.join(root, "dist/cli.js"), ...words], {
    encoding: "utf8",
    cwd: root,
  });
  assert.equal(run.status, 0, run.stderr);
  assert.equal(table, run.stdout);
});

test("docs: the manifest for the MPI operator runs a command that there is, with files that there are", () => {
  const text = readFileSync(path.join(root, "docs/kubernetes/mpijob.yaml"), "utf8");
  interface Replica {
    replicas: number;
    template: { spec: { containers: { command: string[]; image: string }[] } };
  }
  const { spec } = yaml.load(text) as {
    spec: { slotsPerWorker: number; mpiReplicaSpecs: Record<"Launcher" | "Worker", Replica> };
  };
  const { Launcher, Worker } = spec.mpiReplicaSpecs;
  const [container] = Launcher.template.spec.containers;
  assert.equal(container!.image, Worker.template.spec.containers[0]!.image);
  const { command } = container!;
  const ranks = Number(command[command.indexOf("-n") + 1]);
  assert.equal(ranks, Worker.replicas * spec.slotsPerWorker);
  const recipe = path.join(root, "configs/quickstart.yaml");
  const words = command.slice(command.indexOf("simper-native") + 1);
  const flags = words
    .slice(2)
    .filter((word, i, all) => word !== "--device" && all[i - 1] !== "--device");
  const { config } = loadRecipe(recipe, flags);
  assert.equal(words[0], "train");
  assert.equal(config.zeroStage, 3);
});

test("docs: schema.json and recipes.md are what the recipe's schema says", () => {
  const check = spawnSync(process.execPath, [path.join(root, "scripts/docs.mjs"), "--check"], {
    encoding: "utf8",
  });
  assert.equal(check.status, 0, check.stderr);
});
