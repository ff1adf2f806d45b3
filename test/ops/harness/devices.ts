import { type Device, type DeviceName, openDevice, type Stream } from "#src/native/index.js";

/** Every device the cases run on. A device that lands is one more name here. */
export const TEST_DEVICES: readonly DeviceName[] = ["cpu"];

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
