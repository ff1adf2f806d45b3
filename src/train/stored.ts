import type { FlatTensor } from "../checkpoint/pieces.js";
import type { BlockSpec } from "../model/index.js";
import { elementCount } from "../native/index.js";
import type { BlockLayout } from "../parallel/layout.js";

/**
 * The checkpoint tensors of a block and where they lie in its flat buffer: a parameter is stacked from one or more
 * of them. `prefix` goes before their names.
 */
export function flatTensors(
  block: BlockSpec,
  { offsets }: Pick<BlockLayout, "offsets">,
  prefix = "",
): FlatTensor[] {
  return block.parameters.flatMap(({ name, shape: [, ...rest], parts }) => {
    let offset = offsets[name]!;
    return parts.map((part) => {
      const shape = [part.rows, ...rest];
      const tensor = { name: prefix + part.name, shape, offset };
      offset += elementCount(shape);
      return tensor;
    });
  });
}
