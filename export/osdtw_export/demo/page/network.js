// The network in its ONNX file: pixels -> logits.

import * as ort from "./onnxruntime/ort.wasm.min.mjs";

// One thread: more would need headers (COOP, COEP) that plain static hosts do not send.
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL("./onnxruntime/", import.meta.url).href;

/** Fetch and open the file that `model` (model.json) tells of. Resolves to a function from pixels to logits. */
export async function open(model) {
  const answer = await fetch(model.file);
  if (!answer.ok) throw new Error(`${model.file} cannot be loaded (${answer.status}).`);
  const session = await ort.InferenceSession.create(await answer.arrayBuffer(), { executionProviders: ["wasm"] });
  const names = ["logits", ...model.tasks.map((_, k) => `logits_task${k}`)];
  const classify = async (image) => {
    const outputs = await session.run({ pixel_values: prepared(image, model) }, names);
    // A file of one batch size gets our image first, then zeros: the first row is ours.
    const [fused, ...tasks] = names.map((name) => outputs[name].data.slice(0, outputs[name].dims[1]));
    return { fused, tasks };
  };
  const { side } = model.input;
  await classify({ data: new Uint8ClampedArray(side * side * 4) }); // the first run is slow, and not the user's
  return classify;
}

/** Normalised as `prepared` of osdtw_export/interface.py does it, in float32 step by step. */
function prepared({ data }, { input: { side, mean, std, uint8, batch } }) {
  const count = side * side;
  if (uint8) {
    const pixels = new Uint8Array(batch * count * 3);
    for (let i = 0; i < count * 3; i++) pixels[i] = data[Math.floor(i / 3) * 4 + (i % 3)];
    return new ort.Tensor("uint8", pixels, [batch, side, side, 3]);
  }
  const floats = new Float32Array(batch * count * 3);
  for (let channel = 0; channel < 3; channel++) {
    const shift = Math.fround(mean[channel]), scale = Math.fround(std[channel]);
    for (let i = 0; i < count; i++) {
      const unit = Math.fround(data[i * 4 + channel] / 255);
      floats[channel * count + i] = Math.fround(unit - shift) / scale;
    }
  }
  return new ort.Tensor("float32", floats, [batch, 3, side, side]);
}
