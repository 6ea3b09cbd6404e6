// The page: a recording in, through the worker, stems out to the mixer and to files.

import { MAX_BYTES, Stem, zip } from "./files.js";
import { Player } from "./player.js";
import { openRecording } from "./recording.js";

const MAX_KEPT_BYTES = 2 ** 31; // of stems that the browser keeps: 17 minutes of stereo at 44.1 kHz in six stems
const SEEK_S = 5;
const SHORTEST_LOOP_S = 0.1;
const DRAWN_PIXELS = 5; // that the pointer moves at least to choose a part, rather than a place
const TRIAL_MS = 60_000; // that WebGPU may take to prove itself
const DRAWN_DB = 60; // below the loudest that a spectrogram shows
const KEYS = { l: "loop", i: "loop-from", o: "loop-to", s: "spectrograms" };
const wanted = new URLSearchParams(location.search); // ?threads=1&accelerator=wasm, for measurements

const $ = (id) => document.getElementById(id);
const about = fetch("model.json").then((response) => response.json());
let worker, job, player, recorder;
let showsSpectrograms = false;

function startWorker() {
  const cores = Math.min(navigator.hardwareConcurrency ?? 1, 8);
  const threads = window.crossOriginIsolated ? Number(wanted.get("threads") ?? cores) : 1;
  adopt(new Worker("worker.js"));
  worker.postMessage({ type: "load", threads, accelerator: "wasm" });
}

function adopt(newWorker) {
  worker = newWorker;
  worker.onmessage = ({ data }) => receive(data);
  worker.onerror = (event) => fail(event.message || "The worker cannot be started.");
}

/** Tries WebGPU in a worker of its own, since a graphics driver may hang; that worker takes over if it is better. */
async function tryWebGpu() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  if (!adapter || (adapter.info?.isFallbackAdapter && wanted.get("accelerator") !== "webgpu")) return;
  const trial = new Worker("worker.js");
  const end = setTimeout(() => trial.terminate(), TRIAL_MS);
  trial.onmessage = ({ data }) => {
    clearTimeout(end);
    if (data.type !== "ready" || job?.working) return trial.terminate();
    worker.terminate();
    adopt(trial);
    receive(data);
  };
  trial.postMessage({ type: "load", threads: 1, accelerator: "webgpu" });
}

function receive(data) {
  if (data.type === "ready") {
    showEngine(data.engine);
    setReady(true);
    navigator.serviceWorker?.register("offline.js").catch(() => {}); // without it, the page works as well
  }
  if (data.type === "stems") take(data).catch((error) => fail(error.message));
  else if (data.type === "done") finish().catch((error) => fail(error.message));
  else if (data.type === "cancelled") discard("Cancelled.");
  else if (data.type === "error") fail(data.message);
}

function setReady(ready) {
  for (const id of ["file", "record"]) $(id).disabled = !ready;
  document.body.dataset.state = ready ? "ready" : "busy";
}

function showEngine(engine) {
  const way = navigator.serviceWorker ? "more when the page is loaded again" : "https allows more";
  const hint = window.crossOriginIsolated ? "" : ` (one thread; ${way})`;
  $("engine").textContent = `Computes with ${engine}${hint}. Nothing leaves this computer.`;
}

function say(text) {
  $("status").textContent = text;
}

function warn(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

/** Shows an error; a worker that failed may be unusable, so a new one takes its place. */
function fail(message) {
  const working = Boolean(job);
  discard("");
  warn(message);
  worker.terminate();
  setReady(false);
  if (working) startWorker();
  else $("engine").textContent = "No model.";
}

/** Ends the job; nothing of it is kept. */
function discard(text) {
  job?.stems.forEach((stem) => stem.abort().catch(() => {}));
  player?.close();
  job = player = null;
  $("stems").replaceChildren();
  $("mixer").hidden = $("progress-row").hidden = true;
  $("work").hidden = !text;
  say(text);
  setReady(true);
}

async function open(file, name = file.name) {
  if (!file || job?.working) return;
  discard("");
  warn("");
  setReady(false);
  try {
    const recording = await openRecording(file);
    if (!recording.nSamples) throw new Error(`${name}: holds no sound.`);
    const { instruments, sample_rate_hz } = await about;
    const stemBytes = 4 * recording.nSamples * recording.nChannels;
    const minutes = (bytes) => Math.floor(bytes / 4 / recording.nChannels / recording.sampleRate / 60);
    if (stemBytes > MAX_BYTES) throw new Error(`${name}: too long; a stem holds ${minutes(MAX_BYTES)} minutes at most.`);
    const folder = $("folder").checked ? await window.showDirectoryPicker({ mode: "readwrite" }) : null;
    if (!folder && stemBytes * instruments.length > MAX_KEPT_BYTES) {
      const most = minutes(MAX_KEPT_BYTES / instruments.length);
      const way = window.showDirectoryPicker
        ? "Choose “Write the stems into a folder” first."
        : "Chrome and Edge can write longer ones into a folder.";
      throw new Error(`${name}: too long to be kept in this browser, which holds ${most} minutes of it. ${way}`);
    }
    const stems = [];
    for (const stem of instruments) {
      const handle = await folder?.getFileHandle(`${stem}.wav`, { create: true });
      stems.push(new Stem(stem, recording, sample_rate_hz / 2, handle, await handle?.createWritable()));
      await stems.at(-1).begin();
    }
    job = { name: name.replace(/\.[^.]*$/, ""), recording, stems, folder, working: true, began: performance.now() };
  } catch (error) {
    setReady(true);
    if (error.name !== "AbortError") warn(error.message);
    return;
  }
  show();
  worker.postMessage({ type: "separate", recording: job.recording });
}

async function take({ stems, done }) {
  const current = job;
  if (!current) return;
  if (current.cancelled) return worker.postMessage({ type: "cancel" });
  for (const [index, samples] of stems.entries()) await current.stems[index].append(samples);
  current.done = done;
  const { nSamples, sampleRate } = current.recording;
  const elapsed = (performance.now() - current.began) / 1_000;
  const left = Math.ceil((elapsed / done) * (nSamples - done));
  $("progress").value = done / nSamples;
  const speed = done / sampleRate / elapsed;
  say(done ? `${Math.floor((100 * done) / nSamples)} %, about ${clock(left)} left (${speed.toFixed(1)} times real time)` : "");
  draw();
  worker.postMessage({ type: "next" });
}

async function finish() {
  for (const stem of job.stems) await stem.finish();
  job.working = false;
  const { nSamples, sampleRate } = job.recording;
  const elapsed = (performance.now() - job.began) / 1_000;
  const place = job.folder ? `The stems are in the folder ${job.folder.name}.` : "";
  say(`Done in ${clock(elapsed)} (${(nSamples / sampleRate / elapsed).toFixed(1)} times real time). ${place}`);
  $("progress-row").hidden = true;
  job.stems.forEach((stem, index) => {
    const link = $("stems").children[index].querySelector(".download");
    link.href = URL.createObjectURL(stem.file());
    link.download = `${job.name} ${stem.name}.wav`;
    link.removeAttribute("aria-disabled");
  });
  $("zip").disabled = Boolean(job.folder) || job.stems.reduce((sum, stem) => sum + stem.file().size, 0) > MAX_BYTES;
  setReady(true);
  draw();
}

/** Shows the mixer of the job. */
function show() {
  player = new Player(job.stems, job.recording);
  player.addEventListener("change", update);
  $("work").hidden = $("mixer").hidden = $("progress-row").hidden = false;
  $("name").textContent = job.name;
  $("progress").value = 0;
  $("zip").disabled = true;
  $("seek").max = job.recording.nSamples / job.recording.sampleRate;
  say("Separating …");
  $("stems").replaceChildren(...job.stems.map((stem, index) => makeRow(stem, index)));
  update();
  draw();
}

function makeRow(stem, index) {
  const row = $("stem").content.cloneNode(true).firstElementChild;
  const find = (selector) => row.querySelector(selector);
  find("h3").textContent = stem.name;
  for (const [selector, word] of [[".mute", "Mute"], [".solo", "Solo"], [".volume", "Volume of"], [".download", "Download"]]) {
    find(selector).setAttribute("aria-label", `${word} ${stem.name}`);
  }
  find(".mute").onclick = () => player.change(index, { muted: !player.mixes[index].muted });
  find(".solo").onclick = () => player.change(index, { solo: !player.mixes[index].solo });
  find(".volume").oninput = (event) => player.change(index, { volume: Number(event.target.value) });
  listenTo(find("canvas"));
  return row;
}

/** A click moves to a place, drawing over the picture repeats a part. */
function listenTo(canvas) {
  const place = (event) => Math.min(Math.max(0, event.offsetX / canvas.clientWidth), 1) * player.length;
  let down = null; // where the pointer went down, and whether it was moved since
  canvas.onpointerdown = (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    down = { x: event.offsetX, place: place(event), moved: false };
  };
  canvas.onpointermove = (event) => {
    if (!down) return;
    down.moved ||= Math.abs(event.offsetX - down.x) >= DRAWN_PIXELS;
    if (down.moved) drawCursors([down.place, place(event)]);
  };
  canvas.onpointerup = (event) => {
    if (down?.moved) repeat(down.place, place(event));
    else if (down) player.seek(down.place);
    down = null;
  };
  canvas.onpointercancel = () => {
    down = null;
    drawCursors();
  };
}

/** Repeats the part between two samples, if it is long enough. */
function repeat(one, other) {
  const [begin, end] = [one, other].map(Math.round).sort((a, b) => a - b);
  if (end - begin >= SHORTEST_LOOP_S * player.rate) player.repeat(true, [begin, end]);
  update();
}

function update() {
  if (!player) return;
  $("play").textContent = player.playing ? "❚❚" : "▶";
  $("play").setAttribute("aria-label", player.playing ? "Pause" : "Play");
  $("loop").setAttribute("aria-pressed", player.loop);
  const [begin, end] = [player.begin, player.end].map((sample) => clock(sample / player.rate, 1));
  setText($("part"), player.part ? `Repeats ${begin} to ${end}.` : "");
  player.mixes.forEach(({ muted, solo }, index) => {
    const row = $("stems").children[index];
    row.querySelector(".mute").setAttribute("aria-pressed", muted);
    row.querySelector(".solo").setAttribute("aria-pressed", solo);
    row.classList.toggle("quiet", !player.isAudible(index));
  });
  tick();
}

function tick() {
  if (!player) return;
  const position = player.position / player.rate, length = player.length / player.rate;
  if (document.activeElement !== $("seek") || player.playing) $("seek").value = position;
  $("seek").setAttribute("aria-valuetext", `${clock(position)} of ${clock(length)}`);
  $("time").textContent = `${clock(position)} / ${clock(length)}`;
  drawCursors();
  if (player.playing) requestAnimationFrame(tick);
}

/** Draws the waveforms or spectrograms, all to the scale of the loudest; the cursor is their background. */
function draw() {
  const stems = job?.stems ?? [];
  const highest = Math.max(1e-3, ...stems.map(({ peaks }) => peaks.loudest));
  const loudest = Math.max(-60, ...stems.map(({ spectrogram }) => spectrogram.loudest));
  stems.forEach(({ peaks, spectrogram }, index) => {
    const canvas = $("stems").children[index].querySelector("canvas");
    canvas.width = canvas.clientWidth * devicePixelRatio;
    canvas.height = 56 * devicePixelRatio;
    const context = canvas.getContext("2d");
    context.fillStyle = getComputedStyle(canvas).color;
    if (showsSpectrograms) drawSpectrogram(context, spectrogram, loudest);
    else drawWaveform(context, peaks, highest);
  });
}

function drawWaveform(context, peaks, highest) {
  const { width, height } = context.canvas;
  for (let x = 0; x < width; x++) {
    const from = Math.floor((x * peaks.count) / width), to = Math.max(from + 1, Math.floor(((x + 1) * peaks.count) / width));
    const high = Math.max(...peaks.high.subarray(from, to)) / highest;
    const low = Math.min(...peaks.low.subarray(from, to)) / highest;
    context.fillRect(x, (0.5 - high / 2) * height, 1, Math.max(1, ((high - low) / 2) * height));
  }
}

/** The louder, the less transparent: a level of `loudest` in dB is opaque. */
function drawSpectrogram(context, { levels, count, bands }, loudest) {
  const { width, height } = context.canvas;
  const image = new ImageData(count, bands);
  for (let column = 0; column < count; column++) {
    for (let band = 0; band < bands; band++) {
      const opacity = 1 + (levels[column * bands + band] - loudest) / DRAWN_DB;
      image.data[4 * ((bands - 1 - band) * count + column) + 3] = 255 * Math.max(0, opacity);
    }
  }
  const mask = new OffscreenCanvas(count, bands);
  mask.getContext("2d").putImageData(image, 0, 0);
  context.drawImage(mask, 0, 0, width, height);
  context.globalCompositeOperation = "source-in"; // the colour of the stem where there is anything
  context.fillRect(0, 0, width, height);
}

/** Shows where the player is, and the part that it repeats or another one. */
function drawCursors(part = player.part ?? [0, 0]) {
  const percent = (sample) => `${(100 * sample) / player.length}%`;
  const place = percent(player.position);
  const [begin, end] = part.map(percent).sort((a, b) => parseFloat(a) - parseFloat(b));
  const shade = "color-mix(in srgb, currentColor 20%, transparent)";
  const cursor = `transparent calc(${place} - 1px), currentColor 0 calc(${place} + 1px), transparent 0`;
  for (const canvas of $("stems").querySelectorAll("canvas")) {
    canvas.style.background =
      `linear-gradient(90deg, ${cursor}), linear-gradient(90deg, transparent ${begin}, ${shade} 0 ${end}, transparent 0)`;
  }
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text; // or screen readers would say it again
}

function clock(seconds, decimals = 0) {
  const step = 10 ** decimals;
  const rounded = Math.floor(seconds * step + 1e-6) / step;
  return `${Math.floor(rounded / 60)}:${(rounded % 60).toFixed(decimals).padStart(decimals ? 3 + decimals : 2, "0")}`;
}

async function record() {
  if (recorder) return recorder.stop();
  try {
    const sound = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    const stream = await navigator.mediaDevices.getUserMedia({ audio: sound });
    const pieces = [];
    recorder = new MediaRecorder(stream);
    recorder.ondataavailable = ({ data }) => pieces.push(data);
    recorder.onstop = () => {
      stream.getTracks().forEach((track) => track.stop());
      recorder = null;
      $("record").textContent = "Record from the microphone";
      open(new Blob(pieces), "recording");
    };
    recorder.start();
    $("record").textContent = "Stop and separate";
  } catch (error) {
    warn(`The microphone cannot be used (${error.message}).`);
  }
}

$("file").onchange = (event) => {
  const [file] = event.target.files;
  event.target.value = ""; // so that the same file can be chosen again
  if (file) open(file);
};
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && !$("file").disabled && event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
  });
}
$("record").onclick = record;
$("cancel").onclick = () => {
  job.cancelled = true;
  say("Cancelling …");
};
$("play").onclick = () => (player.playing ? player.pause() : player.play());
$("seek").oninput = (event) => player.seek(Number(event.target.value) * player.rate);
$("loop").onclick = () => player.repeat(!player.loop);
$("loop-from").onclick = () => repeat(player.position, player.end > player.position ? player.end : player.length);
$("loop-to").onclick = () => repeat(player.begin < player.position ? player.begin : 0, player.position);
$("spectrograms").onclick = () => {
  showsSpectrograms = !showsSpectrograms;
  $("spectrograms").setAttribute("aria-pressed", showsSpectrograms);
  draw();
};
$("zip").onclick = () => {
  const url = URL.createObjectURL(zip(job.stems));
  Object.assign(document.createElement("a"), { href: url, download: `${job.name}.zip` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
};
document.addEventListener("keydown", (event) => {
  if (!player || event.ctrlKey || event.metaKey || event.altKey) return;
  const onSlider = event.target.matches("input[type=range]"); // which the arrows move
  const digit = /^Digit([1-9])$/.exec(event.code)?.[1] - 1;
  if (event.code === "Space" && !event.target.matches("button, a, input:not([type=range]), summary")) $("play").click();
  else if (event.key === "ArrowLeft" && !onSlider) player.seek(player.position - SEEK_S * player.rate);
  else if (event.key === "ArrowRight" && !onSlider) player.seek(player.position + SEEK_S * player.rate);
  else if (event.key.toLowerCase() in KEYS) $(KEYS[event.key.toLowerCase()]).click();
  else if (digit < player.mixes.length) {
    const [key, value] = event.shiftKey ? ["muted", !player.mixes[digit].muted] : ["solo", !player.mixes[digit].solo];
    player.change(digit, { [key]: value });
  } else return;
  event.preventDefault();
});
window.addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

$("folder-choice").hidden = !window.showDirectoryPicker;
about.then(({ instruments, sample_rate_hz }) => {
  const list = `${instruments.slice(0, -1).join(", ")}${instruments.length > 1 ? " and " : ""}${instruments.at(-1)}`;
  const highest = (sample_rate_hz / 2).toLocaleString("en");
  $("about").textContent =
    `Into ${list}. The model hears, and gives, sound up to ${highest} Hz; what it does not know ends up in the stem that ` +
    "it resembles. Everything happens in this browser: nothing is uploaded.";
});
startWorker();
if (wanted.get("accelerator") !== "wasm") tryWebGpu();
window.sourcesep = { get player() { return player; }, get job() { return job; } }; // for tests
