import type { Rope } from "./rope.js";
import type { ConfigReader } from "./shape.js";

const KINDS: readonly Rope["kind"][] = ["default", "linear", "dynamic", "llama3", "yarn"];

/**
 * Reads `rope_scaling` (transformers 4) or `rope_parameters` (transformers 5), with `type` or `rope_type`, as
 * transformers 5 does: where both fields are there, the older one counts.
 *
 * @throws CheckpointError naming the field that is missing, of the wrong kind or not supported.
 */
export function readRope(config: ConfigReader): { ropeTheta: number; rope: Rope } {
  config.neutral("partial_rotary_factor", [1]);
  const old = config.mapping("rope_scaling");
  const parameters = old.names().length > 0 ? old : config.mapping("rope_parameters");
  parameters.neutral("partial_rotary_factor", [1]);
  const byLayer = parameters.names().find((name) => typeof parameters.get(name) === "object");
  if (byLayer !== undefined) {
    throw parameters.error(byLayer, "one setting for all layers", parameters.get(byLayer));
  }
  const kind = parameters.get("rope_type") ?? parameters.get("type") ?? "default";
  const ropeTheta =
    parameters.get("rope_theta") === undefined
      ? config.positive("rope_theta", 10000)
      : parameters.positive("rope_theta");
  return { ropeTheta, rope: readScaling(config, parameters, kind) };
}

function readScaling(config: ConfigReader, parameters: ConfigReader, kind: unknown): Rope {
  const maxPositions = () => config.count("max_position_embeddings");
  // A field of the config itself counts before that of the mapping.
  const originalMaxPositions = () =>
    config.get("original_max_position_embeddings") === undefined
      ? parameters.count(
          "original_max_position_embeddings",
          config.get("max_position_embeddings") as number | undefined,
        )
      : config.count("original_max_position_embeddings");
  switch (kind) {
    case "default":
      return { kind };
    case "linear":
      return { kind, factor: parameters.positive("factor") };
    case "dynamic":
      return { kind, factor: parameters.positive("factor"), maxPositions: maxPositions() };
    case "llama3": {
      const rope = {
        kind,
        factor: parameters.positive("factor"),
        lowFreqFactor: parameters.positive("low_freq_factor"),
        highFreqFactor: parameters.positive("high_freq_factor"),
        originalMaxPositions: originalMaxPositions(),
      } as const;
      if (rope.highFreqFactor > rope.lowFreqFactor) return rope;
      const expected = `more than low_freq_factor (${rope.lowFreqFactor})`;
      throw parameters.error("high_freq_factor", expected, rope.highFreqFactor);
    }
    case "yarn": {
      const original = originalMaxPositions();
      const factor =
        parameters.get("factor") === undefined
          ? maxPositions() / original
          : parameters.positive("factor");
      return {
        kind,
        factor,
        originalMaxPositions: original,
        betaFast: parameters.positive("beta_fast", 32),
        betaSlow: parameters.positive("beta_slow", 1),
        truncate: parameters.flag("truncate", true),
        attentionFactor: attentionFactor(parameters, factor),
      };
    }
    default:
      throw parameters.error("rope_type", `one of ${KINDS.join(", ")}`, kind);
  }
}

/** YaRN's factor of cosines and sines: 0.1·ln(factor) + 1 unless the config says otherwise. */
function attentionFactor(parameters: ConfigReader, factor: number): number {
  if (parameters.get("attention_factor") !== undefined) {
    return parameters.positive("attention_factor");
  }
  const scale = (weight: number) => (factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1);
  const weight = (name: string) => (parameters.get(name) ? parameters.positive(name) : undefined);
  const [above, below] = [weight("mscale"), weight("mscale_all_dim")];
  return above !== undefined && below !== undefined ? scale(above) / scale(below) : scale(1);
}
