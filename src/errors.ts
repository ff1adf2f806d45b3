/**
 * Every error this project raises on purpose. A message says where, what was expected, what came and
 * what to do; `exitCode` is what the CLI ends with (2: usage, recipe or data; 1: run time).
 */
export class SimperError extends Error {
  /** Stable, machine-readable name of the kind of failure, e.g. `ERR_SIMPER_CONFIG`. */
  readonly code: string;
  /** What the user can do about it, printed on its own line. */
  readonly hint: string | undefined;
  /** What the command line ends with. */
  readonly exitCode: number;

  constructor(
    kind: string,
    message: string,
    options: { hint?: string | undefined; cause?: unknown; exitCode?: number } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = `${kind}Error`;
    this.code = `ERR_SIMPER_${kind.toUpperCase()}`;
    this.hint = options.hint;
    this.exitCode = options.exitCode ?? 1;
  }
}

/** What an error can be given besides its message. */
export type ErrorDetails = {
  /** What the user can do about it. */
  hint?: string | undefined;
  /** The error behind it. */
  cause?: unknown;
};

/** A recipe or a command line that cannot be used. Exit code 2. */
export class ConfigError extends SimperError {
  constructor(message: string, options: ErrorDetails = {}) {
    super("Config", message, { ...options, exitCode: 2 });
  }
}

/** Training data, tokenizer or chat template that cannot be used. Exit code 2. */
export class DataError extends SimperError {
  constructor(message: string, options: ErrorDetails = {}) {
    super("Data", message, { ...options, exitCode: 2 });
  }
}

/** A model directory, safetensors file or checkpoint that cannot be read or written. */
export class CheckpointError extends SimperError {
  constructor(message: string, options: ErrorDetails = {}) {
    super("Checkpoint", message, options);
  }
}

/** An op called with shapes, dtypes or handles that break its contract. */
export class ContractError extends SimperError {
  constructor(message: string, options: ErrorDetails = {}) {
    super("Contract", message, options);
  }
}

/** The run does not fit into memory. */
export class MemoryError extends SimperError {
  constructor(message: string, options: ErrorDetails = {}) {
    super("Memory", message, options);
  }
}

/** A device that is missing or failed while running an op. */
export class DeviceError extends SimperError {
  constructor(message: string, options: ErrorDetails = {}) {
    super("Device", message, options);
  }
}

/** A loss or gradient that is not finite. */
export class NumericsError extends SimperError {
  constructor(message: string, options: ErrorDetails = {}) {
    super("Numerics", message, options);
  }
}

/** The native addon is missing or does not load. */
export class AddonError extends SimperError {
  constructor(message: string, options: ErrorDetails = {}) {
    super("Addon", message, options);
  }
}

/** Another process of the run that failed, hung, was lost or disagrees; or communication that did not come about. */
export class CommError extends SimperError {
  /** The rank that failed first, where that is known. */
  readonly rank: number | undefined;

  constructor(message: string, options: ErrorDetails & { rank?: number | undefined } = {}) {
    super("Comm", message, options);
    this.rank = options.rank;
  }
}

const reported = new WeakSet<object>();

/** Notes that another process of the run tells the user of an error, so that this one need not. */
export function markReported(error: unknown): void {
  if (typeof error === "object" && error !== null) reported.add(error);
}

/** Whether {@link markReported} was called with this error. */
export function isReported(error: unknown): boolean {
  return typeof error === "object" && error !== null && reported.has(error);
}
