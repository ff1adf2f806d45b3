import type { Reporter } from "./records.js";
import { namedReporters, type ReporterName } from "./schema.js";
import { createTensorboardReporter, runFolder } from "./tensorboard.js";
import { createWandbReporter, findWandb } from "./wandb.js";
import { createOfflineWandbReporter, offlineRun } from "./wandb-file.js";

/** The part of a recipe that says where metrics go. */
export interface ReportOptions {
  readonly reportTo: Parameters<typeof namedReporters>[0];
  readonly loggingDir: string | null;
  readonly project: string;
  readonly outputDir: string;
}

/**
 * The reporters that a recipe asks for. With wandb event files are written too, so that nothing is lost where it
 * fails; where it is not installed the run is written as an offline run of W&B.
 *
 * @param notice - told later what becomes of reports that leave this process
 * @param settings - what W&B lists with the run
 */
export function recipeReporters(
  options: ReportOptions,
  notice: (text: string) => void,
  settings: Readonly<Record<string, unknown>>,
  find: () => string | undefined = findWandb,
): { readonly reporters: Reporter[]; readonly notices: readonly string[] } {
  const { reportTo, loggingDir, project, outputDir } = options;
  let python: string | undefined;
  const installed = (): boolean => {
    python ??= find();
    return python !== undefined;
  };
  const names: ReporterName[] = namedReporters(reportTo, installed);
  if (names.length === 0) return { reporters: [], notices: [] };
  const folder = loggingDir ?? runFolder(outputDir, new Date());
  const reporters = [createTensorboardReporter(folder)];
  const notices: string[] = [];
  if (names.includes("wandb") && installed()) {
    reporters.push(createWandbReporter({ python: python!, project, config: settings, notice }));
  } else if (names.includes("wandb")) {
    const run = offlineRun(outputDir, new Date());
    const listed = process.env.WANDB_PROJECT || project;
    reporters.push(createOfflineWandbReporter(run, { project: listed, config: settings }));
    notices.push(
      `report_to: wandb is not installed here; to upload the run where it is: wandb sync ${run.folder}`,
    );
  }
  return { reporters, notices };
}
