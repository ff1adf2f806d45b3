import { loadAddon } from "./load.js";

/**
 * A point in the work of one stream that other streams wait for, made by {@link Device.event}: what
 * orders streams that share memory, without the host waiting for anything.
 *
 * @example
 * const ready = device.event();
 * compute.matmul(gradient, a, b, "tn");
 * compute.record(ready);       // after the product
 * other.wait(ready);           // what `other` does from here on comes after it
 */
export class Event {
  /** Handle of the addon. */
  readonly id: number;

  /** Use {@link Device.event}. */
  constructor(device: number) {
    this.id = loadAddon().openEvent(device);
  }

  /** Frees the handle. What waits for the event already is not disturbed. */
  dispose(): void {
    loadAddon().closeEvent(this.id);
  }

  /** {@link Event.dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}
