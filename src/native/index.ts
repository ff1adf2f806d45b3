export { Arena, alignedBytes } from "./arena.js";
export { DEVICE_NAMES, Device, type DeviceName, openDevice, requireDevice } from "./device.js";
export { type AddonInfo, addonInfo, type OpTime } from "./load.js";
export { MATMUL_FORMS, type MatmulForm, type Ops, opMethod } from "./ops.js";
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
