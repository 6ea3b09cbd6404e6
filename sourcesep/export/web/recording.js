// What can be separated: WAV files are read piece by piece, everything else is decoded by the browser as a whole.

const BLOCK_SAMPLES = 1 << 16;
export const MAX_DECODED_BYTES = 2 ** 30; // of a file that the browser decodes: 50 minutes of stereo at 44.1 kHz

/** Returns {sampleRate, nChannels, nSamples, and `file` with where its samples are, or decoded `channels`}. */
export async function openRecording(file) {
  const head = new DataView(await file.slice(0, 1 << 16).arrayBuffer());
  const wav = readWavHeader(head, file.size);
  if (wav) return { ...wav, file };
  const sampleRate = findSampleRate(head) ?? 44_100;
  let decoded;
  try {
    const context = new OfflineAudioContext(1, 1, Math.min(Math.max(sampleRate, 8_000), 96_000));
    decoded = await context.decodeAudioData(await file.arrayBuffer());
  } catch (error) {
    throw new Error(`${file.name || "The recording"}: this browser cannot decode it. Try a WAV, FLAC, MP3 or Ogg file.`);
  }
  if (decoded.length * decoded.numberOfChannels * 4 > MAX_DECODED_BYTES) {
    throw new Error(`${file.name}: too long to be decoded at once. Convert it to WAV, which is read piece by piece.`);
  }
  const channels = Array.from({ length: decoded.numberOfChannels }, (_, i) => decoded.getChannelData(i).slice());
  return { sampleRate: decoded.sampleRate, nChannels: channels.length, nSamples: decoded.length, channels };
}

/** Returns a recording of `openRecording` with a method that yields all of it, a Float32Array per channel at a time. */
export async function openSource(recording) {
  return { ...recording, blocks: recording.file ? () => readWav(recording) : () => cut(recording) };
}

function* cut({ channels, nSamples }) {
  for (let begin = 0; begin < nSamples; begin += BLOCK_SAMPLES) {
    yield channels.map((samples) => samples.slice(begin, begin + BLOCK_SAMPLES));
  }
}

async function* readWav({ file, dataBegin, nChannels, nSamples, kind, bytes }) {
  const frame = bytes * nChannels;
  for (let begin = 0; begin < nSamples; begin += BLOCK_SAMPLES) {
    const length = Math.min(BLOCK_SAMPLES, nSamples - begin);
    const slice = file.slice(dataBegin + begin * frame, dataBegin + (begin + length) * frame);
    const view = new DataView(await slice.arrayBuffer());
    yield Array.from({ length: nChannels }, (_, channel) => {
      const samples = new Float32Array(length);
      for (let i = 0; i < length; i++) samples[i] = READERS[kind](view, i * frame + channel * bytes);
      return samples;
    });
  }
}

const READERS = {
  pcm1: (view, at) => (view.getUint8(at) - 128) / 2 ** 7,
  pcm2: (view, at) => view.getInt16(at, true) / 2 ** 15,
  pcm3: (view, at) => ((view.getInt8(at + 2) << 16) | view.getUint16(at, true)) / 2 ** 23,
  pcm4: (view, at) => view.getInt32(at, true) / 2 ** 31,
  float4: (view, at) => view.getFloat32(at, true),
  float8: (view, at) => view.getFloat64(at, true),
};

/** Returns where the samples of a WAV file are, or null for another file or another way to store them. */
function readWavHeader(view, size) {
  if (text(view, 0, 4) !== "RIFF" || text(view, 8, 4) !== "WAVE") return null;
  let format = null;
  for (let at = 12; at + 24 <= view.byteLength; ) {
    const name = text(view, at, 4), length = view.getUint32(at + 4, true);
    if (name === "fmt ") {
      let code = view.getUint16(at + 8, true);
      if (code === 0xfffe) code = view.getUint16(at + 32, true); // WAVE_FORMAT_EXTENSIBLE
      const bytes = view.getUint16(at + 22, true) / 8;
      const kind = `${{ 1: "pcm", 3: "float" }[code]}${bytes}`;
      format = { kind, bytes, nChannels: view.getUint16(at + 10, true), sampleRate: view.getUint32(at + 12, true) };
    } else if (name === "data") {
      if (!format || !READERS[format.kind] || !format.nChannels) return null;
      const frame = format.bytes * format.nChannels;
      return { ...format, dataBegin: at + 8, nSamples: Math.floor(Math.min(length, size - at - 8) / frame) };
    }
    at += 8 + length + (length % 2);
  }
  return null;
}

/** Returns the sample rate that a FLAC, Ogg, MP4 or MP3 file states, or null. */
function findSampleRate(view) {
  if (text(view, 0, 4) === "fLaC") return (view.getUint16(18) << 4) | (view.getUint8(20) >> 4);
  if (text(view, 0, 4) === "OggS") {
    if (text(view, 29, 6) === "vorbis") return view.getUint32(40, true);
    if (text(view, 28, 8) === "OpusHead") return 48_000;
  }
  if (text(view, 0, 4) === "\x1aE\xdf\xa3") return 48_000; // WebM, with Opus
  if (text(view, 4, 4) === "ftyp") {
    for (let at = 8; at + 32 < view.byteLength; at++) {
      if (text(view, at, 4) === "mp4a") return view.getUint16(at + 28) || null;
    }
    return null;
  }
  let at = 0;
  if (text(view, 0, 3) === "ID3") {
    at = 10 + [6, 7, 8, 9].reduce((length, i) => (length << 7) | view.getUint8(i), 0);
  }
  for (; at + 4 < view.byteLength; at++) {
    if (view.getUint8(at) !== 0xff || (view.getUint8(at + 1) & 0xe0) !== 0xe0) continue;
    const version = (view.getUint8(at + 1) >> 3) & 3, index = (view.getUint8(at + 2) >> 2) & 3;
    if (version === 1 || index === 3) continue;
    return [44_100, 48_000, 32_000][index] / { 3: 1, 2: 2, 0: 4 }[version];
  }
  return null;
}

function text(view, at, length) {
  if (at + length > view.byteLength) return "";
  return String.fromCharCode(...new Uint8Array(view.buffer, view.byteOffset + at, length));
}
