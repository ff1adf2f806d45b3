import assert from "node:assert/strict";
import { test } from "node:test";
import { ContractError } from "#src/errors.js";
import { loadAddon } from "#src/native/load.js";
import { type OpName, opMethod } from "#src/native/ops.js";
import { type Contract, contracts } from "./contracts.js";
import { type CallArguments, callOp, isSpec, place } from "./harness/calls.js";
import { openRig, type Rig, TEST_DEVICES } from "./harness/devices.js";

/** `rmsnormForward` and `dWeight` as the op table and the messages spell them. */
function snake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function enqueue(rig: Rig, contract: Contract, changes: CallArguments = {}): void {
  using arena = rig.device.arena(2 ** 16, "contract");
  const args = place(arena, rig.stream, { ...contract.valid, ...changes });
  callOp(rig.stream, contract.op, args.values());
}

function assertMessage(run: () => void, message: string | RegExp): void {
  assert.throws(run, (error: unknown) => {
    assert.ok(error instanceof ContractError, String(error));
    if (typeof message === "string") assert.equal(error.message, message);
    else assert.match(error.message, message);
    return true;
  });
}

test("every op of the table has a contract test", () => {
  const table = Object.keys(loadAddon().ops).map((name) => opMethod(name as OpName) as string);
  assert.deepEqual(contracts.map(({ op }) => op as string).sort(), table.sort());
});

for (const deviceName of TEST_DEVICES) {
  for (const contract of contracts) {
    const op = snake(contract.op);
    const tensors = Object.entries(contract.valid).flatMap(([name, argument]) =>
      isSpec(argument) ? [{ name, argument }] : [],
    );

    test(`${deviceName}: ${op} names what breaks its contract`, async () => {
      using rig = openRig(deviceName);
      enqueue(rig, contract);
      for (const [changes, message] of contract.broken) {
        assertMessage(() => enqueue(rig, contract, changes), `${op}: ${message}`);
      }
      for (const { name, argument } of tensors) {
        const dtype = argument.dtype === "i32" ? "f32" : "i32";
        assertMessage(
          () => enqueue(rig, contract, { [name]: { dtype, shape: argument.shape } }),
          new RegExp(`^${op}: ${snake(name)} has dtype ${dtype}, expected `),
        );
      }
      await rig.stream.done(); // nothing that was refused had been enqueued
    });

    test(`${deviceName}: ${op} refuses disposed tensors and missing arguments`, () => {
      using rig = openRig(deviceName);
      const lost = rig.device.arena(2 ** 16, "lost");
      const stale = place(lost, rig.stream, contract.valid);
      lost.dispose();
      using arena = rig.device.arena(2 ** 16, "contract");
      const live = place(arena, rig.stream, contract.valid);
      for (const [index, name] of Object.keys(contract.valid).entries()) {
        if (!isSpec(contract.valid[name]!)) continue;
        const args = new Map(live).set(name, stale.get(name)!);
        assertMessage(
          () => callOp(rig.stream, contract.op, args.values()),
          `${op}: argument ${index + 1} is a tensor that was disposed; keep its arena while it is used`,
        );
      }
      const all = [...live.values()];
      assertMessage(
        () => callOp(rig.stream, contract.op, all.slice(1)),
        `${contract.op}(${[...live.keys()].join(", ")}) takes ${all.length} arguments, received ${all.length - 1}`,
      );
      assertMessage(
        () => callOp(rig.stream, contract.op, [undefined as never, ...all.slice(1)]),
        `${contract.op}: argument 1 (${[...live.keys()][0]}) is undefined, expected a tensor`,
      );
    });

    if (contract.badIndices === undefined) continue;
    test(`${deviceName}: ${op} reports indices out of range at the next await, and goes on`, async () => {
      using rig = openRig(deviceName);
      for (const [changes, message] of contract.badIndices!) {
        enqueue(rig, contract, changes);
        await assert.rejects(rig.stream.done(), (error: unknown) => {
          assert.ok(error instanceof ContractError, String(error));
          assert.ok(error.message.startsWith(`${op}: `), error.message);
          assert.match(error.message, message);
          return true;
        });
        enqueue(rig, contract);
        await rig.stream.done();
      }
    });
  }
}
