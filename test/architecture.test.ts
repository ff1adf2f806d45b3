import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { root } from "./support/paths.js";

// Who may import whom: a file may use its own folder and the ones listed. `schema` stands for the
// schema.ts of any folder, which declares settings and pulls in nothing but zod.
const SCHEMA = "schema";
const LIBRARIES = ["errors", "native", "model", "loss", "optim", "parallel", "data", "report"];
const TRAIN = [...LIBRARIES, "checkpoint", "config"];
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  errors: [],
  native: ["errors"],
  model: ["native", "errors"],
  loss: ["native", "errors"],
  optim: ["native", "errors"],
  parallel: ["native", "errors"],
  data: ["errors"],
  report: ["errors"],
  checkpoint: ["native", "parallel", "errors"],
  config: ["errors", SCHEMA],
  train: TRAIN,
  inference: [...TRAIN, "train"],
  launch: ["parallel", "errors"],
  cli: [...TRAIN, "train", "inference", "launch"],
  index: [...TRAIN, "train", "inference"],
};

// The one way back: a model in training answers prompts with the code that serves it. That code works on a
// session and never on the training loop, so no file imports itself.
const BACK: Readonly<Record<string, string>> = { "src/train/samples.ts": "inference" };

// Headers from outside, and the only places that may include them.
const VENDOR_HEADERS: readonly { header: RegExp; homes: readonly string[] }[] = [
  { header: /^(napi|node_api|js_native_api|uv|v8)/, homes: ["native/addon/"] },
  { header: /dnnl/, homes: ["native/cpu/matmul.cc"] },
  { header: /^omp\.h$/, homes: ["native/cpu/"] },
  { header: /^(cuda|cublas|curand|nvtx)/, homes: ["native/cuda/"] },
  { header: /^nccl/, homes: ["native/comm/"] },
  { header: /^mpi/, homes: ["native/comm/mpi/"] },
];

// Our own headers, by folder: what a folder may include besides itself.
const MAY_INCLUDE: Readonly<Record<string, readonly string[]>> = {
  core: [],
  ops: ["core"],
  cpu: ["core", "ops"],
  cuda: ["core", "ops"],
  emulator: ["core", "ops", "cpu", "cuda"],
  comm: ["core"],
  addon: ["core", "ops", "comm"],
};

// The one way up: where a kernel's wrappers become PTX or the emulator's functions.
const DOOR = { file: "native/cuda/simt/simt.h", header: "emulator/simt_host.h" };

/** Files below a folder of the repository, as paths from its root. */
function filesBelow(folder: string, extension: RegExp): string[] {
  return readdirSync(path.join(root, folder), { recursive: true, encoding: "utf8" })
    .map((file) => path.posix.join(folder, file))
    .filter((file) => extension.test(file))
    .sort();
}

function read(file: string): string {
  return readFileSync(path.join(root, file), "utf8");
}

/** Specifiers of imports, re-exports and dynamic imports; comments name modules, too, and do not count. */
function importsOf(file: string): string[] {
  const code = read(file)
    .replace(/\/\*[\s\S]*?\*\//g, "")
    .replace(/^\s*\/\/.*$/gm, "");
  const statements = code.matchAll(/\b(?:from|import)\s*\(?\s*"([^"]+)"/g);
  return [...statements].map((match) => match[1]!);
}

/** `src/model/llama.ts` → `model`, `src/errors.ts` → `errors`. */
function folderOf(file: string): string {
  return file.split("/")[1]!.replace(/\.ts$/, "");
}

const sources = filesBelow("src", /\.ts$/);

test("architecture: every folder of src/ has a rule about what it may import", () => {
  const unknown = [...new Set(sources.map(folderOf))].filter((folder) => !(folder in MAY_IMPORT));
  assert.deepEqual(unknown, [], "decide what these folders may import and list them above");
});

test("architecture: imports in src/ point one way", () => {
  const wrong: string[] = [];
  let seen = 0;
  for (const file of sources) {
    const from = folderOf(file);
    for (const specifier of importsOf(file).filter((name) => name.startsWith("."))) {
      const target = path.posix.join(path.posix.dirname(file), specifier).replace(/\.js$/, ".ts");
      const to = folderOf(target);
      seen++;
      const allowed = MAY_IMPORT[from] ?? [];
      const isSchema = path.posix.basename(target) === "schema.ts" && allowed.includes(SCHEMA);
      if (to !== from && !allowed.includes(to) && !isSchema && BACK[file] !== to)
        wrong.push(`${file} imports ${target}`);
    }
  }
  assert.ok(seen > 50, `only ${seen} imports found: does the parser still read them?`);
  assert.deepEqual(wrong, []);
});

test("architecture: the schema of a folder needs nothing but zod and other schemas", () => {
  for (const file of sources.filter((name) => /\/schema\.ts$/.test(name))) {
    if (folderOf(file) === "config") continue; // composes them all
    const others = importsOf(file).filter((name) => name !== "zod" && !/schema\.js$/.test(name));
    assert.deepEqual(others, [], file);
  }
});

test("architecture: the addon is loaded in src/native alone", () => {
  const loaders = sources.filter(
    (file) => /\.node\b["'`]|process\.dlopen/.test(read(file)) && folderOf(file) !== "native",
  );
  assert.deepEqual(loaders, []);
});

test("architecture: vendor headers stay in their place", () => {
  const wrong: string[] = [];
  const homesSeen = new Set<string>();
  for (const file of filesBelow("native", /\.(h|cc|cu|cuh|def)$/)) {
    for (const [, header = ""] of read(file).matchAll(/^\s*#\s*include\s*[<"]([^>"]+)[>"]/gm)) {
      const base = path.posix.basename(header);
      for (const vendor of VENDOR_HEADERS) {
        if (!vendor.header.test(base)) continue;
        const home = vendor.homes.find((place) => file.startsWith(place));
        if (home === undefined) wrong.push(`${file} includes ${header}`);
        else homesSeen.add(home);
      }
    }
  }
  assert.deepEqual(wrong, []);
  assert.ok(homesSeen.has("native/addon/") && homesSeen.has("native/cpu/matmul.cc"));
});

test("architecture: folders of native/ include downwards only", () => {
  const wrong: string[] = [];
  let seen = 0;
  for (const file of filesBelow("native", /\.(h|cc|cu|cuh|def)$/)) {
    const from = file.split("/")[1]!;
    for (const [, header = ""] of read(file).matchAll(/^\s*#\s*include\s*"([^"]+)"/gm)) {
      const to = header.includes("/") ? header.split("/")[0]! : from;
      seen++;
      if (file === DOOR.file && header === DOOR.header) continue;
      if (to !== from && !MAY_INCLUDE[from]?.includes(to)) wrong.push(`${file} includes ${header}`);
    }
  }
  assert.ok(seen > 50, `only ${seen} includes found`);
  assert.deepEqual(wrong, []);
});

test("architecture: every native source is in CMakeLists.txt, and nothing else is", () => {
  const lists = ["CMakeLists.txt", ...filesBelow("native", /\.cmake$/)].map(read).join("\n");
  const listed = [...lists.matchAll(/native\/[\w/]+\.(?:cc|cu)\b/g)].map(([file]) => file);
  assert.deepEqual([...new Set(listed)].sort(), filesBelow("native", /\.(cc|cu)$/));
});

test("architecture: an op is one file on the device and one file of cases", () => {
  const ops = [...read("native/ops/ops.def").matchAll(/^OP\((\w+)/gm)].map((match) => match[1]!);
  const cases = filesBelow("test/ops/cases", /\.ts$/).map((file) =>
    path.posix.basename(file, ".ts"),
  );
  for (const file of filesBelow("native/cpu", /\.cc$/)) {
    const defined = ops.filter((op) => new RegExp(`^void ${op}\\(Context&`, "m").test(read(file)));
    if (defined.length === 0) continue;
    const stem = path.posix.basename(file, ".cc").replaceAll("_", "-");
    const found = cases.some((name) => stem === name || stem.startsWith(`${name}-`));
    assert.ok(found, `${file} defines ${defined}: expected test/ops/cases/${stem}.ts`);
  }
  assert.ok(existsSync(path.join(root, "test/ops/cases/index.ts")));
});
