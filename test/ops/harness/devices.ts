import { type Device, type DeviceName, openDevice, type Stream } from "#src/native/index.js";

/** The devices that the cases run on: `cpu`, or what SIMPER_TEST_DEVICES lists (`emulated`, `cpu,cuda`). */
export const TEST_DEVICES = (process.env.SIMPER_TEST_DEVICES ?? "cpu").split(",") as DeviceName[];

/** A device with one stream, closed together. */
export interface Rig extends Disposable {
  readonly device: Device;
  readonly stream: Stream;
}

export function openRig(name: DeviceName = "cpu", threads = 2): Rig {
  const device = openDevice(name, { threads });
  const stream = device.stream();
  return {
    device,
    stream,
    [Symbol.dispose]() {
      stream.dispose();
      device.dispose();
    },
  };
}
