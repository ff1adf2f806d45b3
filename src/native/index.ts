/**
 * The addon as a library: devices, streams, arenas, tensors and every op, without recipes or models.
 *
 * @example
 * import { openDevice } from "simper-native/native";
 * const device = openDevice("cpu");
 * const s = device.stream();
 * const arena = device.arena(4096, "example");
 * const [c, a, b] = [0, 1, 2].map(() => arena.tensor("f32", [4, 4]));
 * s.write(a, Float32Array.from({ length: 16 }, (_, i) => i));
 * s.fill(b, 0.5);
 * s.matmul(c, a, b, "nn");
 * console.log(await s.read(c));
 *
 * @module native
 */
export { Arena, alignedBytes } from "./arena.js";
export { type CommEngine, type CommOptions, Communicator, ncclUniqueId } from "./comm.js";
export {
  DEVICE_NAMES,
  Device,
  type DeviceName,
  deviceCount,
  freeDeviceMemory,
  openDevice,
  requireDevice,
} from "./device.js";
export { Event } from "./event.js";
export {
  type AddonInfo,
  addonInfo,
  type CommCounter,
  type DeviceMemory,
  type OpTime,
} from "./load.js";
export { MATMUL_FORMS, type MatmulForm, type OpName, type Ops, opMethod } from "./ops.js";
export { Stream } from "./stream.js";
export {
  DTYPES,
  type DType,
  elementCount,
  type HostArray,
  hostArray,
  sizeOf,
  Tensor,
  Window,
} from "./tensor.js";
