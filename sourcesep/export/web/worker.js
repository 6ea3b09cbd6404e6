// Computes: blocks of a recording in, stems out, window by window. A classic worker, since LiteRT.js loads scripts in it.
"use strict";

const NEAR = 1e-3; // WebGPU may differ from WebAssembly by this much

let litert, parts, about, flatbuffer, modelChannels;
let engine; // {model, name, and once it was computed ofSilence}
let answer = () => {}; // takes the page's answer to the stems of a window

self.onmessage = async ({ data }) => {
  try {
    if (data.type === "load") await load(data);
    else if (data.type === "separate") await separate(data);
    else answer(data.type); // "next" or "cancel"
  } catch (error) {
    self.postMessage({ type: "error", message: explain(error) });
  }
};

async function load({ threads, accelerator }) {
  if (typeof WebAssembly !== "object") throw new Error("This browser has no WebAssembly. A newer one is needed.");
  parts = { ...(await import("./separation.js")), ...(await import("./recording.js")) };
  [about, flatbuffer] = await Promise.all([fetchFile("model.json", "json"), fetchFile("model.tflite", "arrayBuffer")]);
  modelChannels = about.channels ?? 1; // 1 in exports of earlier versions, which do not say
  flatbuffer = flatbuffer.slice(0, about.flatbuffer_bytes); // its description follows
  await checkModel();
  const folder = new URL("litert/", self.location.href).href;
  const loader = threads > 1 ? "litert_wasm_threaded_internal.js" : "";
  self.Module = { locateFile: (name) => folder + name, mainScriptUrlOrBlob: folder + loader };
  litert = await import("./litert/core.js");
  await litert.loadLiteRt(folder, { threads: threads > 1 });
  engine = { model: await compile("wasm", threads), name: threads > 1 ? `WebAssembly, ${threads} threads` : "WebAssembly" };
  if (accelerator === "webgpu") await tryWebGpu();
  self.postMessage({ type: "ready", engine: engine.name });
}

function compile(accelerator, numThreads = 1) {
  const options = { accelerator, cpuOptions: { numThreads }, gpuOptions: { precision: "fp32" } };
  return litert.loadAndCompile(new Uint8Array(flatbuffer), options);
}

async function fetchFile(name, kind) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name} cannot be loaded (${response.status}). Is the export complete?`);
  return response[kind]();
}

async function checkModel() {
  let damaged = flatbuffer.byteLength !== about.flatbuffer_bytes;
  if (!damaged && self.crypto.subtle) { // which is there on https and localhost only
    const digest = new Uint8Array(await self.crypto.subtle.digest("SHA-256", flatbuffer));
    damaged = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") !== about.flatbuffer_sha256;
  }
  if (damaged) throw new Error("The model is damaged (its checksum is wrong). Reload the page, or export it again.");
}

/** Returns the stems of a window, interleaved [time, channel * stem], from as many channels as the model has. */
async function forward(model, channels) {
  const nChannels = channels.length, nSamples = channels[0].length;
  const samples = new Float32Array(nSamples * nChannels);
  channels.forEach((channel, at) => channel.forEach((sample, i) => (samples[i * nChannels + at] = sample)));
  const input = new litert.Tensor(samples, [1, nSamples, nChannels]);
  const [output] = await model.run([input]);
  const stems = (await output.data()).slice();
  input.delete();
  output.delete();
  return stems;
}

/** The same, for windows of a recording: digital silence always gives the same stems, which are computed once. */
async function forwardOnce(channels) {
  if (channels.some((samples) => samples.some((sample) => sample !== 0))) return forward(engine.model, channels);
  engine.ofSilence ??= await forward(engine.model, channels);
  return engine.ofSilence;
}

/** Changes to WebGPU if it runs the whole model, computes the same as WebAssembly, and is faster. */
async function tryWebGpu() {
  const channel = Float32Array.from({ length: about.window_samples }, (_, i) => 0.2 * Math.sin(i * i));
  const noise = Array(modelChannels).fill(channel);
  const model = await compile("webgpu");
  const began = performance.now();
  const expected = await forward(engine.model, noise);
  const between = performance.now();
  await forward(model, noise); // the first time its programs are compiled
  const again = performance.now();
  const stems = await forward(model, noise);
  const isFaster = performance.now() - again < between - began;
  const difference = stems.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i])), 0);
  if (!model.isFullyAccelerated || !isFaster || !(difference < NEAR)) throw new Error("WebGPU is of no use here.");
  engine.model.delete();
  engine = { model, name: "WebGPU" };
}

async function separate({ recording }) {
  const source = await parts.openSource(recording);
  const { sampleRate, nChannels, nSamples } = source;
  const rate = about.sample_rate_hz;
  const nStems = about.instruments.length;
  const toModel = new parts.Resampler(sampleRate, rate, nChannels);
  const back = new parts.Resampler(rate, sampleRate, nChannels * nStems);
  const cutter = new parts.Windows(about, nChannels);
  let written = 0;

  /** Sends stems on, each interleaved [time, channel]; returns whether to go on. */
  const send = async (columns) => {
    const length = Math.min(columns[0].length, nSamples - written);
    const stems = Array.from({ length: nStems }, (_, stem) => {
      const samples = new Float32Array(length * nChannels);
      for (let channel = 0; channel < nChannels; channel++) {
        const column = columns[channel * nStems + stem];
        for (let i = 0; i < length; i++) samples[i * nChannels + channel] = column[i];
      }
      return samples;
    });
    written += length;
    const answered = new Promise((resolve) => (answer = resolve));
    self.postMessage({ type: "stems", stems, done: written }, stems.map((stem) => stem.buffer));
    return (await answered) === "next";
  };

  /** Returns the kept part of one output of the model, the mean over some of its columns. */
  const keep = (output, { first, last }, columns) => {
    const nColumns = modelChannels * nStems;
    const kept = new Float32Array(last - first);
    for (const column of columns) {
      for (let i = 0; i < kept.length; i++) kept[i] += output[(first + i) * nColumns + column] / columns.length;
    }
    if (kept.length && !Number.isFinite(kept.reduce((sum, value) => sum + value, 0))) {
      throw new Error("The model computes values that are not finite numbers. Is the recording damaged?");
    }
    return kept;
  };

  // As the Separator in Python: a model of two channels separates two channels as one recording; any other recording
  // goes through it channel by channel, each on both of its own, and the stem is the mean of its two outputs.
  const isWhole = nChannels === modelChannels;
  const apply = async (window) => {
    const columns = [];
    const inputs = isWhole ? [window.samples] : window.samples.map((samples) => Array(modelChannels).fill(samples));
    for (const input of inputs) {
      const output = await forwardOnce(input);
      for (let at = 0; at < (isWhole ? modelChannels : 1) * nStems; at++) {
        const averaged = isWhole ? [at] : Array.from({ length: modelChannels }, (_, channel) => channel * nStems + at);
        columns.push(keep(output, window, averaged));
      }
    }
    return send(back.push(columns));
  };

  for await (const block of source.blocks()) {
    for (const window of cutter.push(toModel.push(block))) {
      if (!(await apply(window))) return self.postMessage({ type: "cancelled" });
    }
  }
  for (const window of [...cutter.push(toModel.flush()), ...cutter.flush()]) {
    if (!(await apply(window))) return self.postMessage({ type: "cancelled" });
  }
  const rest = back.flush().map((column) => {
    const padded = new Float32Array(Math.max(column.length, nSamples - written));
    padded.set(column);
    return padded;
  });
  if (!(await send(rest))) return self.postMessage({ type: "cancelled" });
  self.postMessage({ type: "done" });
}

function explain(error) {
  const message = String(error?.message ?? error);
  return /memory|alloc|OOM/i.test(message)
    ? `There is too little memory (${message}). Close other tabs, or separate a shorter recording.`
    : message;
}
