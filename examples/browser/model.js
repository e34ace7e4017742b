// A model that is run step by step: it hears frames, and draws the next ones.

import * as ort from "onnxruntime-web/wasm";

const runtime = new URL("ort-wasm-simd-threaded.wasm", import.meta.url);
ort.env.wasm.wasmPaths = { wasm: runtime.href };
ort.env.wasm.numThreads = 1; // more need headers that few servers send

/** Loads the model and what `about.json` says of it. */
export async function load() {
  const about = await (await fetch("about.json")).json();
  const session = await ort.InferenceSession.create("step.onnx");
  return { about, session };
}

/** Numbers from 0 to 1 of a seed (mulberry32). */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

const row = (values) => new ort.Tensor("float32", Float32Array.from(values), [1, values.length]);

/** The states before the first step. */
export const first = ({ about }) =>
  Object.fromEntries(about.states.map((state, k) => [`state_${k}`, row(state)]));

/** One step: the logits of the next frame, given a part of it, and the new states. */
export async function step({ about, session }, frame, states, drawn) {
  const given = about.whole ? { x_0: row(frame), x_1: row(drawn) } : { x: row(frame) };
  const found = await session.run({ ...given, ...states });
  const names = Object.keys(states);
  const next = Object.fromEntries(names.map((name) => [name, found[`new_${name}`]]));
  return { logits: found.y.data, next };
}

/** Draws the frame after another.
 *
 * In a model of whole frames each key depends on those before it in the order. All
 * logits up to the first key that is on are right while the others are taken to be off;
 * so a frame takes a step for each of its keys that is on, and one more.
 */
export async function draw(model, frame, states, temperature, uniform) {
  const noise = model.about.order.map(() => {
    const u = Math.max(uniform(), 1e-9);
    return temperature * (Math.log(u) - Math.log1p(-u));
  });
  const drawn = new Float32Array(frame.length);
  for (let from = 0; ; ) {
    const { logits, next } = await step(model, frame, states, drawn);
    let place = from;
    for (; place < noise.length; place++) {
      const key = model.about.order[place];
      if (logits[key] <= noise[place]) continue;
      drawn[key] = 1;
      if (model.about.whole) break; // what comes after it has changed
    }
    if (place === noise.length) return { drawn, next };
    from = place + 1;
  }
}

/** What follows frames: so many more. */
export async function goOn(model, frames, count, temperature, seed, progress = () => {}) {
  const uniform = random(seed), made = [];
  const silence = new Float32Array(model.about.width);
  let states = first(model);
  for (const [k, frame] of frames.slice(0, -1).entries()) {
    states = (await step(model, frame, states, silence)).next;
    if (k % 16 === 0) await progress(k / (frames.length + count));
  }
  let frame = frames.at(-1) ?? silence;
  while (made.length < count) {
    const { drawn, next } = await draw(model, frame, states, temperature, uniform);
    [frame, states] = [drawn, next];
    made.push(drawn);
    await progress((frames.length + made.length) / (frames.length + count));
  }
  return made;
}
