import { ConfigError } from "../errors.js";
import { type AccelerateConfig, accelerateNotices } from "./accelerate.js";
import { explain } from "./explain.js";
import { foreignKeys, isIdle, isRefused } from "./foreign.js";
import { didYouMean, nearest, toCodeName, toRecipeKey } from "./names.js";
import { readings } from "./readings.js";
import {
  aliases,
  type Config,
  crossCheck,
  keysWithoutEffect,
  lengthNotices,
  lossNotices,
  recipeSchema,
  resolveDefaults,
} from "./schema.js";
import {
  lossByName,
  mixerOf,
  nullIsUnset,
  sftOnlyKeys,
  synonyms,
  translations,
} from "./translate.js";
import type { Place } from "./yaml.js";

/** A recipe that holds: its config, and sentences for the user to see once. */
export interface Checked {
  /** Every key with its default filled in; frozen. */
  readonly config: Config;
  readonly notices: readonly string[];
}

/** How a problem's line starts, and its place in the file for sorting. */
export interface Where {
  readonly label: string;
  readonly place?: Place;
}
/** Finds a key's place, or that of something inside its value. */
export type Locate = (inner: readonly PropertyKey[], part: "key" | "value") => Where;

const shape: Readonly<Record<string, Field>> = recipeSchema.shape;
type Field = {
  safeParse(value: unknown): { success: boolean };
  meta(): Record<string, unknown> | undefined;
};

/** Collects keys from every source, then validates them all at once. */
export class Check {
  private readonly values = new Map<string, { value: unknown; locate: Locate }>();
  private readonly foreign = new Map<string, { value: unknown; locate: Locate }>();
  private readonly translated = new Map<string, { value: unknown; locate: Locate }>();
  private readonly spelled = new Set<string>();
  private readonly problems: { where: Where; message: string }[] = [];

  constructor(private readonly source: string) {}

  problem(where: Where, message: string): void {
    this.problems.push({ where, message });
  }

  /** Takes one key; a later source replaces an earlier one, two spellings in one source clash. */
  add(key: string, value: unknown, locate: Locate, flags: readonly string[] = []): void {
    const name = codeName(key);
    this.spelled.add(key);
    if (name === undefined) {
      if (Object.hasOwn(foreignKeys, key)) this.foreign.set(key, { value, locate });
      else if (Object.hasOwn(translations, key)) this.translated.set(key, { value, locate });
      else this.problem(locate([], "key"), `unknown key${suggest(key, flags)}`);
      return;
    }
    const earlier = this.values.get(name);
    const where = locate([], "key");
    if (earlier && where.place && earlier.locate([], "key").place) {
      this.problem(where, `the same key as ${earlier.locate([], "key").label}; keep one of them`);
    }
    this.values.set(name, { value, locate });
  }

  /** Sets one entry of a key that holds a map, leaving the others as they are. */
  addEntry(key: string, entry: string, value: unknown, locate: Locate): void {
    const name = codeName(key);
    if (name === undefined) {
      if (Object.hasOwn(foreignKeys, key))
        this.foreign.set(key, { value: { [entry]: value }, locate });
      else this.problem(locate([], "key"), `unknown key${suggest(key, [])}`);
      return;
    }
    const before = this.values.get(name);
    const map = before?.value ?? {};
    if (typeof map !== "object" || Array.isArray(map) || !this.accepts(key, {}, "map")) {
      this.problem(locate([], "key"), `${key} is not a map, so it has no entry "${entry}"`);
      return;
    }
    this.values.set(name, {
      value: { ...map, [entry]: value },
      locate: (inner, part) =>
        before === undefined || inner[0] === entry
          ? locate(inner.slice(1), part)
          : before.locate(inner, part),
    });
  }

  knows(key: string): boolean {
    return codeName(key) !== undefined || Object.hasOwn(translations, key);
  }

  /** Whether a key takes this value; as a "map", whether it takes maps of any content. */
  accepts(key: string, value: unknown, kind?: "map"): boolean {
    const name = codeName(key);
    if (name === undefined) {
      return (
        Object.hasOwn(foreignKeys, key) || (Object.hasOwn(translations, key) && value !== true)
      );
    }
    const result = recipeSchema.safeParse({ [name]: value });
    const issues = result.error?.issues.filter((issue) => issue.path[0] === name) ?? [];
    if (kind !== "map") return issues.length === 0;
    return !issues.some((issue) => issue.path.length === 1 && issue.code === "invalid_type");
  }

  /** Lets keys of other trainers that say what ours say stand in for them; returns those set aside. */
  private translate(): { key: string; reason: string }[] {
    const others = new Map([...this.translated].map(([key, { value }]) => [key, value]));
    const made = new Set<string>();
    const idle: { key: string; reason: string }[] = [];
    for (const [key, { value, locate }] of this.translated) {
      const { name, join, needs } = translations[key]!;
      if ((value ?? null) === null || made.has(name)) continue;
      if (needs !== undefined && idle.some((other) => other.key === needs)) {
        idle.push({ key, reason: `it belongs to ${needs}` });
        continue;
      }
      const ours = this.values.get(name);
      const inFile = (at: Locate): boolean => at([], "key").place !== undefined;
      if (ours === undefined || (inFile(ours.locate) && !inFile(locate))) {
        made.add(name);
        this.values.set(name, {
          value: join(value, others),
          locate: (_, part) => locate([], part),
        });
      } else {
        idle.push({ key, reason: `${toRecipeKey(name)} is given` });
      }
    }
    return idle;
  }

  /** Replaces a value that does not fit its key by what it was meant as, where that fits. */
  private readAsMeant(): void {
    for (const [name, given] of this.values) {
      const { value } = given;
      if (value === null && nullIsUnset.has(name)) this.values.delete(name);
      const key = toRecipeKey(name);
      if (this.accepts(key, value)) continue;
      const candidates = readings(value);
      if (typeof value === "string") candidates.push(synonyms[name]?.[value]);
      if (name === "datasetMixer") candidates.push(...candidates.flatMap(mixerOf));
      const meant = candidates.find((other) => other !== undefined && this.accepts(key, other));
      if (meant !== undefined) this.values.set(name, { ...given, value: meant });
    }
  }

  /** Without loss_type, gamma_beta_ratio is for the loss that the run is named after; returns what to say of it. */
  private takeLossByName(): string | undefined {
    if (
      this.values.has("lossType") ||
      (this.values.get("gammaBetaRatio")?.value ?? null) === null
    ) {
      return undefined;
    }
    const named = lossByName({
      hub_model_id: this.foreign.get("hub_model_id")?.value,
      run_name: this.values.get("runName")?.value,
      output_dir: this.values.get("outputDir")?.value,
    });
    if (named === undefined) return undefined;
    const { lossType, because } = named;
    this.values.set("lossType", { value: lossType, locate: () => ({ label: "loss_type" }) });
    if (lossType === "SimPER") return undefined;
    return `loss_type is not given and is sigmoid, SimPO's: there is a gamma_beta_ratio, and ${because}`;
  }

  /** The precision of an accelerate file holds where the recipe says nothing; what both say has to agree. */
  private takePrecision(file: AccelerateConfig): void {
    const where = { label: file.label("mixed_precision") };
    if (file.precision === "fp16" || file.precision === "fp8") {
      this.problem(where, refusal(file.precision, "only bf16 and f32 are supported; use bf16"));
    }
    if (file.precision !== "bf16") return;
    const given = this.values.get("bf16");
    if (given === undefined) this.values.set("bf16", { value: true, locate: () => where });
    else if ([given.value, ...readings(given.value)].includes(false)) {
      this.problem(
        where,
        `bf16 contradicts ${given.locate([], "key").label}: false; keep one of them`,
      );
    }
  }

  /** Sharding and offloading of an accelerate file hold where the recipe says nothing of them. */
  private takeSharding(file: AccelerateConfig): string[] {
    const notices: string[] = [];
    const asked = [
      ["zeroStage", "zero_stage", file.zeroStage],
      ["offloadOptimizer", "offload_optimizer_device", file.offload],
    ] as const;
    for (const [name, key, value] of asked) {
      if (value === null) continue;
      const label = file.label("deepspeed_config", key);
      const given = this.values.get(name);
      if (given === undefined) this.values.set(name, { value, locate: () => ({ label }) });
      else if (![given.value, ...readings(given.value)].includes(value)) {
        const ours = `${toRecipeKey(name)}: ${String(given.value)}`;
        notices.push(`${label}: ${value} is not taken: the recipe has ${ours}`);
      }
    }
    return notices;
  }

  private checkAgreement(file: AccelerateConfig, config: Config): void {
    for (const { key, name, value } of file.agree) {
      if (config[name] === value) continue;
      const message = `${value} contradicts ${toRecipeKey(name)}: ${config[name]} of the recipe; write the same number`;
      this.problem({ label: file.label(...key.split(".")) }, message);
    }
  }

  /**
   * @param accelerate what the recipe is to be run under, where a file says so
   * @param processes how many it is run with
   */
  finish(accelerate?: AccelerateConfig, processes = 1): Checked {
    if (accelerate) this.takePrecision(accelerate);
    const sharding = accelerate ? this.takeSharding(accelerate) : [];
    const idle = this.translate();
    const sftKey = sftOnlyKeys.find((key) => this.spelled.has(key));
    const meansSft = sftKey !== undefined && !this.values.has("lossType");
    if (meansSft) {
      this.values.set("lossType", { value: "sft", locate: () => ({ label: "loss_type" }) });
    }
    const meansSimpo = this.takeLossByName();
    this.readAsMeant();
    const raw = Object.fromEntries([...this.values].map(([name, { value }]) => [name, value]));
    const parsed = recipeSchema.safeParse(raw);
    for (const issue of parsed.error?.issues ?? []) {
      const name = String(issue.path[0]);
      const later = (shape[name]?.meta()?.later ?? []) as string[];
      const reason = explain(issue, raw, later);
      const mixture =
        name === "datasetMixer" && raw[name] === undefined ? mixtureHint(this.spelled) : "";
      this.problem(this.where(name, reason.path.slice(1), "value"), reason.message + mixture);
    }
    const config = parsed.success ? resolveDefaults(parsed.data) : undefined;
    for (const [key, { value, locate }] of this.foreign) {
      const known = foreignKeys[key]!;
      if ([value, ...readings(value)].some((meant) => isIdle(known, meant))) continue;
      if (isRefused(known, value, config)) {
        this.problem(locate([], "value"), refusal(value, known.reason));
      } else idle.push({ key, reason: known.reason });
    }
    for (const { key, message } of config === undefined ? [] : crossCheck(config)) {
      this.problem(this.where(key, [], "value"), message);
    }
    if (config && accelerate) this.checkAgreement(accelerate, config);
    if (!parsed.success || config === undefined || this.problems.length > 0) throw this.error();
    const given = this.given();
    idle.push(...keysWithoutEffect(config, parsed.data, given));
    const notices = [...lengthNotices(config, given), ...lossNotices(config, given)];
    if (meansSft)
      notices.push(`loss_type is not given and is sft: only such recipes have ${sftKey}`);
    if (meansSimpo !== undefined) notices.push(meansSimpo);
    if (idle.length > 0) notices.push(noEffectNotice(idle));
    notices.push(...sharding);
    if (accelerate) notices.push(...accelerateNotices(accelerate, config, processes));
    return { config: deepFreeze(config), notices };
  }

  /** Keys with a value other than null. */
  private given(): ReadonlySet<string> {
    return new Set(
      [...this.values].filter(([, { value }]) => value !== null).map(([name]) => name),
    );
  }

  /** Where a key was given, or the recipe as a whole when it was not. */
  private where(name: string, inner: readonly PropertyKey[], part: "key" | "value"): Where {
    const given = this.values.get(name);
    if (given !== undefined) return given.locate(inner, part);
    return {
      label: `${this.source}: ${display(this.source === "config" ? name : toRecipeKey(name), inner)}`,
    };
  }

  private error(): ConfigError {
    const order = ({ where }: { where: Where }): number =>
      where.place ? where.place.line * 1e6 + where.place.column : Number.MAX_SAFE_INTEGER;
    const lines = this.problems
      .toSorted((a, b) => order(a) - order(b))
      .map(({ where, message }) => `${where.label}: ${message}`);
    if (lines.length === 1) return new ConfigError(lines[0]!);
    return new ConfigError(
      `${lines.length} problems\n${lines.map((line) => `  ${line}`).join("\n")}`,
    );
  }
}

function codeName(key: string): string | undefined {
  if (Object.hasOwn(aliases, key)) return aliases[key];
  const name = toCodeName(key);
  return Object.hasOwn(shape, name) && toRecipeKey(name) === key ? name : undefined;
}

function suggest(key: string, flags: readonly string[]): string {
  if (Object.hasOwn(shape, key)) return ` (did you mean "${toRecipeKey(key)}"?)`;
  const flag = nearest(
    key,
    flags.map((text) => text.replace(/^--/, "")),
  );
  const others = [...Object.keys(aliases), ...Object.keys(translations)];
  const known = [...Object.keys(shape).map(toRecipeKey), ...others];
  const near = nearest(key, [...known, ...(flag === undefined ? [] : [flag])]);
  if (near !== undefined)
    return near === flag ? ` (did you mean "--${flag}"?)` : ` (did you mean "${near}"?)`;
  return didYouMean(key, Object.keys(foreignKeys));
}

function refusal(value: unknown, reason: string): string {
  return `${JSON.stringify(value)} cannot be honoured: ${reason}`;
}

/** `dataset_mixer["rows.jsonl"]`, `dataset_splits[1]`. */
export function display(key: string, inner: readonly PropertyKey[]): string {
  return (
    key +
    inner.map((step) => (typeof step === "number" ? `[${step}]` : `["${String(step)}"]`)).join("")
  );
}

/** For recipes that name their data as newer releases of alignment-handbook do. */
function mixtureHint(spelled: ReadonlySet<string>): string {
  if (!spelled.has("dataset_mixture")) return "";
  return "; dataset_mixture is not read, so name local files: dataset_mixer: {path: fraction}";
}

/** One line for all such keys, grouped by why. */
function noEffectNotice(idle: readonly { key: string; reason: string }[]): string {
  const byReason = new Map<string, string[]>();
  for (const { key, reason } of idle) byReason.set(reason, [...(byReason.get(reason) ?? []), key]);
  const groups = [...byReason].map(([reason, keys]) => `${keys.join(", ")} (${reason})`);
  return `accepted, no effect: ${groups.join("; ")}`;
}

function deepFreeze<T>(value: T): T {
  if (typeof value === "object" && value !== null) {
    Object.values(value).forEach(deepFreeze);
    Object.freeze(value);
  }
  return value;
}
