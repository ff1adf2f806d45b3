/** Tensors that model files carry and that are computed or shared here: no reason to refuse a model. */
export function ignoredTensor(tied: boolean): (name: string) => boolean {
  return (name) => name.endsWith(".rotary_emb.inv_freq") || (tied && name === "lm_head.weight");
}
