import assert from "node:assert/strict";
import { test } from "node:test";
import { ContractError } from "#src/errors.js";
import { openAll } from "./support.js";

/** A call as JavaScript can make it, where nobody checks types. */
type Loose = Record<string, (...args: unknown[]) => unknown>;

function assertRefused(run: () => unknown, message: string): void {
  assert.throws(run, (error: unknown) => {
    assert.ok(error instanceof ContractError, String(error));
    assert.equal(error.message, message);
    return true;
  });
}

test("arguments: a call names method, argument, what came and what was expected", () => {
  using all = openAll();
  const s = all.stream as unknown as Loose;
  const x = all.arena.tensor("f32", [4, 8]);
  const weight = all.arena.tensor("f32", [8]);
  const rstd = all.arena.tensor("f32", [4]);
  const norm = s.rmsnormForward!.bind(s);
  const named = (message: string) => `rmsnormForward: ${message}`;
  assertRefused(
    () => norm(x, undefined, x, weight, 1e-5),
    named("argument 2 (rstd) is undefined, expected a tensor"),
  );
  assertRefused(
    () => norm(x, rstd, 3, weight, 1e-5),
    named("argument 3 (x) is the number 3, expected a tensor"),
  );
  assertRefused(
    () => norm(x, rstd, x, new Float32Array(8), 1e-5),
    named("argument 4 (weight) is an object of class Float32Array, expected a tensor"),
  );
  assertRefused(
    () => norm(x, rstd, x, weight, "1e-5"),
    named('argument 5 (eps) is "1e-5", expected a number'),
  );
  assertRefused(
    () => norm(x, rstd, x, weight, x),
    named("argument 5 (eps) is a tensor, expected a number"),
  );
  assertRefused(
    () => norm(x, rstd, x),
    "rmsnormForward(y, rstd, x, weight, eps) takes 5 arguments, received 3",
  );
  assertRefused(
    () => s.matmul!(x, x, x, "tt"),
    'matmul: argument 4 (form) is "tt", expected "nn", "nt" or "tn"',
  );
  assertRefused(
    () => s.ropeForward!(x, rstd, x, 1.5),
    "ropeForward: argument 4 (heads) is the number 1.5, expected a whole number",
  );
});

test("arguments: a transfer is between a tensor and an array of its elements", async () => {
  using all = openAll();
  const s = all.stream as unknown as Loose;
  const x = all.arena.tensor("f32", [4]);
  assertRefused(
    () => s.write!(undefined, new Float32Array(4)),
    "write: argument 1 (tensor) is undefined, expected a tensor",
  );
  const expected = "expected a Float32Array for dtype f32, or its bytes as a Uint8Array";
  assertRefused(
    () => s.write!(x, [1, 2, 3, 4]),
    `write: argument 2 (array) is an object of class Array, ${expected}`,
  );
  assertRefused(
    () => s.write!(x, new Int32Array(4)),
    `write: argument 2 (array) is an object of class Int32Array, ${expected}`,
  );
  assertRefused(
    () => s.readInto!(x, new Float64Array(2)),
    `readInto: argument 2 (array) is an object of class Float64Array, ${expected}`,
  );
  await assert.rejects(s.read!(null) as Promise<unknown>, {
    name: "ContractError",
    message: "read: argument 1 (tensor) is null, expected a tensor",
  });
});

test("arguments: a tensor wants a dtype and a list of extents", () => {
  using all = openAll();
  const arena = all.arena as unknown as Loose;
  assertRefused(
    () => arena.tensor!("f64", [4]),
    'arena "test": dtype is "f64", expected f32, bf16, f16, i32',
  );
  assertRefused(
    () => arena.tensor!("f32", 4),
    'arena "test": shape is 4, expected a list of whole numbers such as [512, 64]',
  );
  const x = all.arena.tensor("f32", [4]) as unknown as Loose;
  assertRefused(
    () => x.view!([4], { dtype: "f64" }),
    'view: dtype is "f64", expected f32, bf16, f16, i32',
  );
});
