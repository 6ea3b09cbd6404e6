// Stems as WAV files, in memory or in a folder, and a ZIP archive of them.

const HEADER_BYTES = 58;
export const MAX_BYTES = 2 ** 32 - 2 ** 16; // of a WAV file or an archive, whose lengths have 32 bits

/** Returns the header of a WAV file of 32-bit floats. */
export function wavHeader(nSamples, nChannels, sampleRate) {
  const view = new DataView(new ArrayBuffer(HEADER_BYTES));
  const nBytes = 4 * nChannels * nSamples;
  const fields = [
    "RIFF", [4, HEADER_BYTES - 8 + nBytes], "WAVE", "fmt ", [4, 18], [2, 3], [2, nChannels], [4, sampleRate],
    [4, 4 * nChannels * sampleRate], [2, 4 * nChannels], [2, 32], [2, 0], "fact", [4, 4], [4, nSamples], "data",
    [4, nBytes],
  ];
  let at = 0;
  for (const field of fields) {
    if (typeof field === "string") {
      for (const letter of field) view.setUint8(at++, letter.charCodeAt(0));
    } else {
      const [size, value] = field;
      if (size === 2) view.setUint16(at, value, true);
      else view.setUint32(at, value, true);
      at += size;
    }
  }
  return new Uint8Array(view.buffer);
}

/** A stem that grows: samples are appended and read back. They are kept as Blobs, which a browser may move to disk. */
export class Stem {
  /**
   * `highestHz` is how high its spectrogram goes; `writable` is a stream into a file of the user's folder, which `handle`
   * names, or null to keep the stem here.
   */
  constructor(name, recording, highestHz, handle = null, writable = null) {
    Object.assign(this, { name, recording, handle, writable });
    this.blobs = []; // {begin, blob}, of [time, channel] floats
    this.nSamples = 0;
    this.checksum = new Checksum();
    this.peaks = new Peaks(recording);
    this.spectrogram = new Spectrogram(recording, highestHz);
  }

  async begin() {
    if (this.writable) await this.writable.write(this.header());
    this.checksum.add(this.header());
  }

  header() {
    return wavHeader(this.recording.nSamples, this.recording.nChannels, this.recording.sampleRate);
  }

  /** Appends interleaved samples. */
  async append(samples) {
    const length = samples.length / this.recording.nChannels;
    this.peaks.add(samples);
    this.spectrogram.add(samples);
    if (this.writable) await this.writable.write(samples);
    else {
      this.checksum.add(new Uint8Array(samples.buffer));
      this.blobs.push({ begin: this.nSamples, blob: new Blob([samples]) });
    }
    this.nSamples += length;
  }

  /** Called when all samples are there; a file in a folder can be read from then on. */
  async finish() {
    if (!this.writable) return;
    await this.writable.close();
    const file = await this.handle.getFile();
    this.blobs = [{ begin: 0, blob: file.slice(HEADER_BYTES) }];
  }

  /** Throws away a file that is not complete. */
  async abort() {
    await this.writable?.abort();
  }

  /** Whether samples can be read back yet. */
  get readable() {
    return this.blobs.length ? this.nSamples : 0;
  }

  /** Returns samples `begin` to `end`, interleaved. */
  async read(begin, end) {
    const frame = 4 * this.recording.nChannels;
    const pieces = this.blobs
      .filter(({ begin: at, blob }) => at < end && at + blob.size / frame > begin)
      .map(({ begin: at, blob }) => blob.slice(Math.max(0, begin - at) * frame, (end - at) * frame));
    return new Float32Array(await new Blob(pieces).arrayBuffer());
  }

  /** The stem as a WAV file. */
  file() {
    return new Blob([this.header(), ...this.blobs.map(({ blob }) => blob)], { type: "audio/wav" });
  }
}

/** The lowest and highest sample of each of at most 4,000 stretches of a stem, for its picture. */
export class Peaks {
  constructor({ nSamples, nChannels }) {
    this.width = Math.max(1, Math.ceil(nSamples / 4_000)) * nChannels;
    this.low = new Float32Array(4_000);
    this.high = new Float32Array(4_000);
    this.count = Math.ceil((nSamples * nChannels) / this.width);
    this.n = 0;
    this.loudest = 0;
  }

  add(samples) {
    for (const sample of samples) this.loudest = Math.max(this.loudest, Math.abs(sample));
    for (let i = 0; i < samples.length; i++) {
      const bin = Math.floor((this.n + i) / this.width);
      if (samples[i] < this.low[bin]) this.low[bin] = samples[i];
      if (samples[i] > this.high[bin]) this.high[bin] = samples[i];
    }
    this.n += samples.length;
  }
}

const FRAME = 2_048; // samples of which a spectrum is computed
const HANN = Float32Array.from({ length: FRAME }, (_, i) => Math.sin((Math.PI * i) / FRAME) ** 2);
const COSINES = Float32Array.from({ length: FRAME / 2 }, (_, i) => Math.cos((2 * Math.PI * i) / FRAME));
const SINES = Float32Array.from({ length: FRAME / 2 }, (_, i) => -Math.sin((2 * Math.PI * i) / FRAME));
const BANDS = 64;
const LOWEST_HZ = 40;

/**
 * The levels of bands of a stem, in dB, for its picture. Of at most 1,000 stretches of the stem it hears the beginning, so
 * that memory and computation do not grow with its length.
 */
export class Spectrogram {
  /** `highestHz` is where the last band ends; bands are equally wide on a logarithmic scale. */
  constructor({ nSamples, nChannels, sampleRate }, highestHz) {
    this.nChannels = nChannels;
    this.bands = BANDS;
    this.every = Math.max(FRAME, Math.ceil(nSamples / 1_000));
    this.count = Math.ceil(nSamples / this.every);
    this.levels = new Float32Array(this.count * BANDS).fill(-Infinity); // [column, band]
    this.frame = new Float32Array(FRAME);
    this.n = 0;
    const highest = Math.min(highestHz, sampleRate / 2);
    this.bins = Array.from({ length: BANDS + 1 }, (_, band) =>
      Math.floor((LOWEST_HZ * (highest / LOWEST_HZ) ** (band / BANDS) * FRAME) / sampleRate));
  }

  add(samples) {
    for (let i = 0; i < samples.length; i += this.nChannels, this.n++) {
      const at = this.n % this.every;
      if (at >= FRAME) continue;
      let sum = 0;
      for (let channel = 0; channel < this.nChannels; channel++) sum += samples[i + channel];
      this.frame[at] = sum / this.nChannels;
      if (at === FRAME - 1) this.measure(Math.floor(this.n / this.every));
    }
  }

  measure(column) {
    const powers = powerSpectrum(this.frame);
    for (let band = 0; band < BANDS; band++) {
      const first = this.bins[band], last = Math.max(first + 1, this.bins[band + 1]);
      this.levels[column * BANDS + band] = 10 * Math.log10(Math.max(...powers.subarray(first, last)));
    }
  }

  get loudest() {
    return this.levels.reduce((most, level) => Math.max(most, level), -Infinity);
  }
}

/** Returns the power of each bin of a frame under a Hann window: 1 for a sine with an amplitude of 1. */
function powerSpectrum(frame) {
  const real = new Float32Array(FRAME), imaginary = new Float32Array(FRAME);
  for (let i = 0, reversed = 0; i < FRAME; i++) {
    real[reversed] = frame[i] * HANN[i];
    let bit = FRAME >> 1;
    for (; reversed & bit; bit >>= 1) reversed ^= bit;
    reversed |= bit;
  }
  for (let half = 1; half < FRAME; half *= 2) {
    for (let k = 0; k < half; k++) {
      const cosine = COSINES[(k * FRAME) / 2 / half], sine = SINES[(k * FRAME) / 2 / half];
      for (let i = k; i < FRAME; i += 2 * half) {
        const j = i + half;
        const a = real[j] * cosine - imaginary[j] * sine, b = real[j] * sine + imaginary[j] * cosine;
        real[j] = real[i] - a;
        imaginary[j] = imaginary[i] - b;
        real[i] += a;
        imaginary[i] += b;
      }
    }
  }
  return real.subarray(0, FRAME / 2 + 1).map((value, i) => (value ** 2 + imaginary[i] ** 2) * (4 / FRAME) ** 2);
}

/** Returns stems of Blobs as a ZIP archive without compression. */
export function zip(stems) {
  const parts = [], directory = [];
  let at = 0;
  for (const stem of stems) {
    const file = stem.file();
    const name = new TextEncoder().encode(`${stem.name}.wav`);
    const common = [[2, 20], [2, 0x800], [2, 0], [2, 0], [2, 0x21], [4, stem.checksum.value], [4, file.size],
      [4, file.size], [2, name.length], [2, 0]];
    const local = record([[4, 0x04034b50], ...common]);
    parts.push(local, name, file);
    directory.push(
      record([[4, 0x02014b50], [2, 20], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, at]]), name);
    at += local.length + name.length + file.size;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = record([[4, 0x06054b50], [2, 0], [2, 0], [2, stems.length], [2, stems.length], [4, size], [4, at], [2, 0]]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

function record(fields) {
  const view = new DataView(new ArrayBuffer(fields.reduce((sum, [size]) => sum + size, 0)));
  let at = 0;
  for (const [size, value] of fields) {
    if (size === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += size;
  }
  return new Uint8Array(view.buffer);
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? 0xedb88320 ^ (byte >>> 1) : byte >>> 1;
  return byte;
});

/** CRC-32, as ZIP has it. */
class Checksum {
  #state = 0xffffffff;

  add(bytes) {
    let state = this.#state;
    for (let i = 0; i < bytes.length; i++) state = CRC_TABLE[(state ^ bytes[i]) & 255] ^ (state >>> 8);
    this.#state = state;
  }

  get value() {
    return (this.#state ^ 0xffffffff) >>> 0;
  }
}
