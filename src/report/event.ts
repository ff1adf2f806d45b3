import { doubleField, floatField, messageField, textField, wholeField } from "./protobuf.js";

/** What one record of an event file says: the format's version, or scalars of a step. */
export type EventContent =
  | { readonly fileVersion: string }
  | { readonly step: number; readonly scalars: Readonly<Record<string, number>> };

/**
 * An `Event` of TensorBoard in protobuf's wire format.
 *
 *     Event   { wall_time: double = 1; step: int64 = 2; file_version: string = 3; summary: Summary = 5 }
 *     Summary { repeated Value value = 1 }      Value { tag: string = 1; simple_value: float = 2 }
 *
 * @param wallTime seconds since 1970.
 */
export function encodeEvent(wallTime: number, content: EventContent): Buffer {
  const time = doubleField(1, wallTime);
  if ("fileVersion" in content) return Buffer.concat([time, textField(3, content.fileVersion)]);
  const values = Object.entries(content.scalars).map(([tag, value]) =>
    messageField(1, textField(1, tag), floatField(2, value)),
  );
  return Buffer.concat([time, wholeField(2, content.step), messageField(5, ...values)]);
}
