import { type Device, type DeviceName, openDevice, type Stream } from "#src/native/index.js";

/** The devices that the cases run on: `cpu`, or what SIMPER_TEST_DEVICES lists (`emulated`, `cpu,cuda`). */
export const TEST_DEVICES = (process.env.SIMPER_TEST_DEVICES ?? "cpu").split(",") as DeviceName[];

/** Why the emulated device cannot be used, for `test(…, { skip })`; false where it can. */
export const noEmulator: string | false = TEST_DEVICES.includes("emulated")
  ? false
  : "needs the emulated device: npm run test:emulator";

/** A device with one stream, closed together. */
export interface Rig extends Disposable {
  readonly device: Device;
  readonly stream: Stream;
}

/**
 * @param seed which thread of a block runs when, on the emulated device: drawn by lots. Default: as the environment says.
 */
export function openRig(name: DeviceName = "cpu", threads = 2, seed?: number): Rig {
  const device = openDevice(name, { threads });
  const before = { ...process.env };
  if (seed !== undefined) {
    process.env.SIMPER_EMULATOR_POLICY = "random"; // read by the addon when the stream opens
    process.env.SIMPER_EMULATOR_SEED = String(seed);
  }
  const stream = device.stream();
  for (const name of ["SIMPER_EMULATOR_POLICY", "SIMPER_EMULATOR_SEED"]) {
    if (before[name] === undefined) delete process.env[name];
    else process.env[name] = before[name];
  }
  return {
    device,
    stream,
    [Symbol.dispose]() {
      stream.dispose();
      device.dispose();
    },
  };
}
