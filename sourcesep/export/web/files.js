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
  /** `writable` is a stream into a file of the user's folder, which `handle` names; null to keep the stem here. */
  constructor(name, recording, handle = null, writable = null) {
    Object.assign(this, { name, recording, handle, writable });
    this.blobs = []; // {begin, blob}, of [time, channel] floats
    this.nSamples = 0;
    this.checksum = new Checksum();
    this.peaks = new Peaks(recording);
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
