import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { addonInfo, DTYPES, openDevice, sizeOf } from "#src/native/index.js";
import { loadAddon } from "#src/native/load.js";
import { opParameters } from "#src/native/op-arguments.js";
import { type OpName, opMethod } from "#src/native/ops.js";
import { root } from "../support/paths.js";

const source = (file: string) => readFileSync(path.join(root, file), "utf8");

interface Signature {
  readonly name: string;
  /** `tensor`, `number` or `MatmulForm`, by argument name. */
  readonly args: readonly string[];
}

const camel = (name: string) => opMethod(name as OpName) as string;

/** The entries of native/ops/ops.def, in the spelling of TypeScript. */
function nativeTable(): Signature[] {
  const text = source("native/ops/ops.def").replace(/\/\/.*$/gm, "");
  return [...text.matchAll(/\bOP\((\w+),([^)]*)\)/g)].map(([, name = "", list = ""]) => ({
    name: camel(name),
    args: list.split(",").map((argument) => {
      const [type = "", argumentName = ""] = argument.trim().split(/\s+/);
      const kind = type === "Tensor" || type === "MatmulForm" ? type : "number";
      return `${camel(argumentName)}: ${kind}`;
    }),
  }));
}

/** The methods of the interface Ops in src/native/ops.ts. */
function typedTable(): Signature[] {
  const text = source("src/native/ops.ts").replace(/\/\*\*[\s\S]*?\*\//g, "");
  const body = /export interface Ops \{([\s\S]*?)\n\}/.exec(text)![1]!;
  return [...body.matchAll(/(\w+)\(([^)]*)\): void;/g)].map(([, name = "", list = ""]) => ({
    name,
    args: list
      .split(",")
      .map((argument) => argument.trim())
      .filter((argument) => argument !== ""),
  }));
}

test("op table: ops.def and the interface Ops agree, name by name and argument by argument", () => {
  assert.ok(nativeTable().length > 20);
  assert.deepEqual(typedTable(), nativeTable());
});

test("op table: the arguments that a call is checked against are those of ops.def", () => {
  const kinds = { tensor: "Tensor", number: "number", integer: "number", form: "MatmulForm" };
  const checked = nativeTable().map(({ name }) => ({
    name,
    args: opParameters(name as ReturnType<typeof opMethod>).map(
      ({ name: argument, kind }) => `${argument}: ${kinds[kind]}`,
    ),
  }));
  assert.deepEqual(checked, nativeTable());
  const text = source("native/ops/ops.def");
  const integers = [...text.matchAll(/int64_t (\w+)/g)].map(([, name = ""]) => camel(name));
  const listed = nativeTable().flatMap(({ name }) =>
    opParameters(name as ReturnType<typeof opMethod>).filter(({ kind }) => kind === "integer"),
  );
  assert.deepEqual(
    listed.map(({ name }) => name),
    integers,
  );
});

test("op table: the addon has exactly these ops, and a stream their methods", () => {
  const names = nativeTable().map(({ name }) => name);
  assert.deepEqual(
    Object.keys(loadAddon().ops).map((name) => camel(name)),
    names,
  );
  using device = openDevice("cpu");
  using stream = device.stream();
  for (const name of names) {
    assert.equal(typeof (stream as unknown as Record<string, unknown>)[name], "function", name);
  }
});

test("op table: dtypes are listed in the order and with the sizes of dtype.h", () => {
  const text = source("native/core/dtype.h");
  const listed = /enum class DType : int32_t \{([^}]*)\}/.exec(text)![1]!.split(",");
  assert.deepEqual(
    [...DTYPES],
    listed.map((name) => name.trim()),
  );
  assert.deepEqual(DTYPES.map(sizeOf), [4, 2, 2, 4]);
});

test("addon: says what it can use on this machine", () => {
  const info = addonInfo();
  assert.match(info.path, /\.node$/);
  assert.ok(info.cpu.threads >= 1);
  assert.match(info.cpu.onednn, /^\d+\.\d+\.\d+$/);
  assert.deepEqual(
    info.backends.map(({ name }) => name),
    ["CUDA", "NCCL", "MPI"],
  );
});
