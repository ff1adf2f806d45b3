import type { Matrix } from "../reference/matrix.js";
import { isTensor, type OpCase, type TensorArgument } from "./case.js";
import { rounded } from "./dtype.js";
import { Random } from "./random.js";

/** The inputs of a case in float64, exactly as the op will see them (already rounded to their dtype). */
export class Values {
  private readonly arrays: ReadonlyMap<string, Float64Array>;
  private readonly args: OpCase["args"];

  constructor(args: OpCase["args"], arrays: ReadonlyMap<string, Float64Array>) {
    this.args = args;
    this.arrays = arrays;
  }

  array(name: string): Float64Array {
    const array = this.arrays.get(name);
    if (array === undefined) throw new Error(`the case has no input ${name}`);
    return array;
  }

  matrix(name: string): Matrix {
    const [rows = 0, columns = 1] = this.shape(name);
    return { rows, columns, data: this.array(name) };
  }

  shape(name: string): readonly number[] {
    return (this.args[name] as TensorArgument).shape;
  }

  scalar(name: string): number {
    return this.args[name] as number;
  }

  text(name: string): string {
    return this.args[name] as string;
  }

  /** The same inputs with one of them replaced: what finite differences call the loss with. */
  with(name: string, array: Float64Array): Values {
    return new Values(this.args, new Map(this.arrays).set(name, array));
  }

  /** Names of the tensors that have values before the call. */
  names(): string[] {
    return [...this.arrays.keys()];
  }
}

/** Draws the inputs of a case. The same seed and case give the same values. */
export function drawValues(opCase: OpCase): Values {
  const { args } = opCase;
  const random = new Random(`${opCase.op} ${opCase.name}`);
  const arrays = new Map<string, Float64Array>();
  for (const [name, argument] of Object.entries(args)) {
    if (!isTensor(argument) || argument.fill === undefined || argument.over !== undefined) continue;
    const elements = argument.shape.reduce((a, b) => a * b, 1);
    const values = argument.fill(random, elements);
    if (values.length !== elements) {
      throw new Error(
        `${opCase.op} ${opCase.name}: ${name} has ${values.length} values, not ${elements}`,
      );
    }
    arrays.set(name, rounded(argument.dtype, values));
  }
  // An argument that accumulates onto memory of another starts from what is there.
  for (const [name, argument] of Object.entries(args)) {
    if (isTensor(argument) && argument.over !== undefined && argument.role === "update") {
      arrays.set(name, arrays.get(argument.over)!);
    }
  }
  const derived = opCase.derive?.(new Values(args, arrays)) ?? {};
  for (const [name, values] of Object.entries(derived)) {
    arrays.set(name, rounded((args[name] as TensorArgument).dtype, values));
  }
  return new Values(args, arrays);
}
