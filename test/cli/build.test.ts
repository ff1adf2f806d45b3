import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { root } from "../support/paths.js";

const dir = mkdtempSync(path.join(os.tmpdir(), "simper-build-"));
after(() => rmSync(dir, { recursive: true }));

/** A folder of commands to use as PATH: a program with a script, or the system's own. */
function tools(programs: Record<string, string | true>): string {
  const folder = mkdtempSync(path.join(dir, "bin-"));
  for (const [name, body] of Object.entries(programs)) {
    const file = path.join(folder, name);
    if (body === true)
      symlinkSync(
        spawnSync("bash", ["-c", `command -v ${name}`], { encoding: "utf8" }).stdout.trim(),
        file,
      );
    else writeFileSync(file, `#!/bin/sh\n${body}\n`, { mode: 0o755 });
  }
  return folder;
}

/** A copy of the build scripts in a package of its own, so that no test touches the real build folder. */
function clone(): string {
  const folder = mkdtempSync(path.join(dir, "clone-"));
  for (const part of ["scripts", "native", "CMakeLists.txt", "package.json"]) {
    cpSync(path.join(root, part), path.join(folder, part), { recursive: true });
  }
  symlinkSync(path.join(root, "node_modules"), path.join(folder, "node_modules"));
  return folder;
}

function build(
  env: NodeJS.ProcessEnv,
  args: string[] = [],
  script = "build.mjs",
  at = clone(),
): { status: number | null; lines: string[] } {
  const run = spawnSync(process.execPath, [path.join(at, "scripts", script), ...args], {
    encoding: "utf8",
    env,
  });
  return { status: run.status, lines: (run.stdout + run.stderr).trimEnd().split("\n") };
}

const sudo = process.getuid?.() === 0 ? "" : "sudo ";
const apt = (name: string) => `Install it: ${sudo}apt-get install -y ${name}`;
const cmake = (version: string) => `echo "cmake version ${version}"`;
const finds = "exit 0";
const findsNothing = 'case "$*" in *-E*) exit 1;; esac';

test("each missing tool is one line with the command that installs it", () => {
  const all = { "apt-get": "exit 0", "c++": finds, cmake: cmake("3.25.1"), make: "exit 0" };
  const { cmake: _, ...noCmake } = all;
  const { make: __, ...noMake } = all;
  const { "c++": ___, ...noCompiler } = all;
  const cases: [Record<string, string>, NodeJS.ProcessEnv, string][] = [
    [noCmake, {}, `simper-native: cmake is missing. ${apt("cmake")}`],
    [
      { ...all, cmake: cmake("3.18.4") },
      {},
      `simper-native: cmake 3.18 is too old, expected 3.22 or newer. ${apt("cmake")}`,
    ],
    [noMake, {}, `simper-native: make (or ninja) is missing. ${apt("make")}`],
    [noCompiler, {}, `simper-native: a C++ compiler is missing. ${apt("g++")}`],
    [all, { CXX: "icpx" }, `simper-native: the C++ compiler icpx is missing. ${apt("g++")}`],
    [
      { ...all, "c++": findsNothing },
      {},
      `simper-native: oneDNN is missing. ${apt("libdnnl-dev")}`,
    ],
  ];
  for (const [programs, env, line] of cases) {
    const run = build({ PATH: tools(programs), ...env });
    assert.equal(run.status, 1);
    assert.deepEqual(run.lines, [line]);
  }
});

test("everything that is missing is said at once", () => {
  const run = build({ PATH: tools({ "apt-get": "exit 0", "c++": findsNothing }) });
  assert.deepEqual(
    run.lines.map((line) => line.split(". Install")[0]),
    [
      "simper-native: cmake is missing",
      "simper-native: make (or ninja) is missing",
      "simper-native: oneDNN is missing",
    ],
  );
});

test("another package manager gets its own names", () => {
  const run = build({
    PATH: tools({ dnf: "exit 0", "c++": findsNothing, cmake: cmake("3.30.0"), ninja: "" }),
  });
  assert.deepEqual(run.lines, [
    `simper-native: oneDNN is missing. Install it: ${sudo}dnf install -y onednn-devel`,
  ]);
});

test("oneDNN in a folder of its own is found through the CMake options", () => {
  const prefix = mkdtempSync(path.join(dir, "prefix-"));
  mkdirSync(path.join(prefix, "include/oneapi/dnnl"), { recursive: true });
  writeFileSync(path.join(prefix, "include/oneapi/dnnl/dnnl.hpp"), "");
  const PATH = tools({ "apt-get": "exit 0", "c++": findsNothing, cmake: cmake("3.25.1") });
  for (const name of ["SIMPER_CMAKE_OPTION_CMAKE_PREFIX_PATH", "CMAKE_PREFIX_PATH", "DNNL_ROOT"]) {
    const run = build({ PATH, [name]: prefix });
    assert.deepEqual(run.lines, [`simper-native: make (or ninja) is missing. ${apt("make")}`]);
  }
});

test("the install hook never fails, says why there is no addon, and can be told to skip", () => {
  const PATH = tools({ "apt-get": "exit 0", "c++": finds, make: "" });
  const run = build({ PATH }, [], "install.mjs");
  assert.equal(run.status, 0);
  assert.deepEqual(run.lines, [
    `simper-native: cmake is missing. ${apt("cmake")}`,
    "simper-native: the native addon is not built yet. Then run: npx simper-native build",
  ]);
  const skipped = build({ PATH, SIMPER_SKIP_BUILD: "1" }, [], "install.mjs");
  assert.deepEqual(skipped, { status: 0, lines: [""] });
});

test("a failing compile shows the first error and where the rest is; CMake options reach CMake", () => {
  const at = clone();
  writeFileSync(
    path.join(at, "CMakeLists.txt"),
    'cmake_minimum_required(VERSION 3.22)\nproject(x LANGUAGES CXX)\nif(SIMPER_MARCH STREQUAL "x86-64-v3")\nmessage(STATUS "march as asked")\nendif()\nmessage(FATAL_ERROR "no such luck")\n',
  );
  const env = { ...process.env, SIMPER_CMAKE_OPTION_SIMPER_MARCH: "x86-64-v3" };
  const run = build(env, ["--out", "elsewhere"], "build.mjs", at);
  assert.equal(run.status, 1);
  assert.ok(
    run.lines.some((line) => line.includes("no such luck")),
    run.lines.join("\n"),
  );
  assert.equal(
    run.lines.at(-1),
    "simper-native: the build failed. Everything it printed: elsewhere/build.log",
  );
  assert.match(readFileSync(path.join(at, "elsewhere/build.log"), "utf8"), /march as asked/);
});

test("a small addon is built, and built again after the clone has moved", () => {
  const at = clone();
  writeFileSync(
    path.join(at, "empty.cc"),
    'extern "C" int napi_register_module_v1() { return 0; }\n',
  );
  writeFileSync(
    path.join(at, "CMakeLists.txt"),
    'cmake_minimum_required(VERSION 3.22)\nproject(x LANGUAGES CXX)\nadd_library(simper_native MODULE empty.cc)\nset_target_properties(simper_native PROPERTIES PREFIX "" SUFFIX ".node")\n',
  );
  const first = build(process.env, [], "build.mjs", at);
  assert.deepEqual(first, {
    status: 0,
    lines: ["simper-native: built build/Release/simper_native.node"],
  });
  const moved = `${at}-moved`;
  cpSync(at, moved, { recursive: true, verbatimSymlinks: true });
  rmSync(at, { recursive: true });
  assert.deepEqual(build(process.env, [], "build.mjs", moved), first);
  const debug = build(process.env, ["--debug", "--clean"], "build.mjs", moved);
  assert.deepEqual(debug, {
    status: 0,
    lines: ["simper-native: built build/Debug/simper_native.node"],
  });
});

test("binding.gyp depends on every native source", () => {
  const listed = build(process.env, ["--list-sources"]).lines;
  for (const file of ["native/ops/ops.def", "native/addon/addon.cc", "native/core/tensor.h"])
    assert.ok(listed.includes(file), file);
});

test("build --cuda: a machine without nvcc is told so before anything is compiled", () => {
  const { status, lines } = build({ ...process.env, CUDACXX: "/nonexistent/nvcc" }, ["--cuda"]);
  assert.equal(status, 1);
  assert.ok(
    lines.some((line) => line.startsWith("simper-native: nvcc is missing on PATH, in CUDA_PATH,")),
    lines.join("\n"),
  );
});
