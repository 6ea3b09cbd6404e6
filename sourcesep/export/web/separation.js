// Windows and resampling, as sourcesep.separate.separation and soxr have them in Python.

const PASSED = 0.913; // of the lower Nyquist frequency: the band that resampling keeps, as soxr's high quality
const REJECTION_DB = 90;

/** Resamples blocks of audio without seams and without delay, by a windowed sinc. */
export class Resampler {
  /** From one rate to another, both whole numbers in Hz. */
  constructor(from, to, nChannels) {
    const divisor = greatestCommonDivisor(from, to);
    this.up = to / divisor;
    this.down = from / divisor;
    const nyquist = Math.min(from, to) / 2 / from; // in cycles per sample of the input
    // To a higher rate, the band next to the Nyquist frequency may be mirrored a little: half the work.
    const stopped = to > from ? 2 - PASSED : 1;
    const transition = 2 * Math.PI * nyquist * (stopped - PASSED);
    this.half = from === to ? 0 : Math.ceil((REJECTION_DB - 7.95) / (2.285 * transition) / 2);
    this.taps = 2 * this.half;
    this.coefficients = this.half ? this.design((nyquist * (stopped + PASSED)) / 2) : null;
    this.held = Array.from({ length: nChannels }, () => new Float32Array(this.half ? this.half - 1 : 0));
    this.begin = -(this.half - 1); // number of the input sample that `held` begins with
    this.nIn = this.nOut = 0;
  }

  /** A row of coefficients for each place of an output sample between two input samples; each row sums to 1. */
  design(cutoff) {
    const { up, half, taps } = this;
    const beta = 0.1102 * (REJECTION_DB - 8.7);
    const coefficients = new Float32Array(up * taps);
    for (let phase = 0; phase < up; phase++) {
      const row = coefficients.subarray(phase * taps, (phase + 1) * taps);
      let sum = 0;
      for (let tap = 0; tap < taps; tap++) {
        const time = tap - (half - 1) - phase / up;
        const place = time / half;
        const x = 2 * Math.PI * cutoff * time;
        const sinc = x === 0 ? 1 : Math.sin(x) / x;
        row[tap] = Math.abs(place) < 1 ? sinc * bessel(beta * Math.sqrt(1 - place * place)) : 0;
        sum += row[tap];
      }
      for (let tap = 0; tap < taps; tap++) row[tap] /= sum;
    }
    return coefficients;
  }

  /** Takes the next block, a Float32Array per channel of one length; returns what is ready of the result. */
  push(block) {
    this.nIn += block[0].length;
    return this.half ? this.convolve(block, this.nIn - this.half) : block;
  }

  /** Returns the rest of the result. */
  flush() {
    if (!this.half) return this.held;
    return this.convolve(this.held.map(() => new Float32Array(this.half + 1)), this.nIn);
  }

  /** Computes the outputs that lie before the input sample `end`. */
  convolve(block, end) {
    const { up, down, taps, half, coefficients } = this;
    const inputs = this.held.map((held, channel) => concatenate([held, block[channel]]));
    const first = this.nOut;
    const last = Math.max(first, Math.ceil((end * up) / down));
    const outputs = inputs.map((input) => {
      const output = new Float32Array(last - first);
      for (let i = first; i < last; i++) {
        const place = i * down;
        const phase = place % up;
        let at = (place - phase) / up - (half - 1) - this.begin;
        let a = 0, b = 0;
        for (let tap = phase * taps, stop = tap + taps; tap < stop; tap += 2, at += 2) {
          a += coefficients[tap] * input[at]; // two sums are faster than one
          b += coefficients[tap + 1] * input[at + 1];
        }
        output[i - first] = a + b;
      }
      return output;
    });
    this.nOut = last;
    const needed = Math.floor((last * down) / up) - (half - 1);
    this.held = inputs.map((input) => input.slice(needed - this.begin));
    this.begin = needed;
    return outputs;
  }
}

/** Cuts audio that comes in blocks into windows of one length, whose kept parts follow each other without a gap. */
export class Windows {
  /** `about` is the description of the model: window_samples and receptive_field_samples. */
  constructor(about, nChannels) {
    const { before, after, stride } = about.receptive_field_samples;
    this.stride = stride;
    this.before = Math.ceil(Math.max(0, before) / stride) * stride;
    this.after = Math.ceil(Math.max(0, after) / stride) * stride;
    this.length = about.window_samples;
    this.held = Array.from({ length: nChannels }, () => new Float32Array(0));
    this.begin = this.start = this.done = 0; // of what is held, of the next window, and of what is not kept yet
  }

  /** Takes a block; returns the windows that are complete: {samples: per channel, first, last}. */
  push(block) {
    this.held = this.held.map((held, channel) => concatenate([held, block[channel]]));
    const windows = [];
    while (this.start + this.length <= this.begin + this.held[0].length) {
      const end = this.start + this.length - this.after;
      windows.push(this.window(this.start, this.done, end));
      this.done = end;
      this.start = Math.max(0, this.done - this.before);
    }
    // The last window begins at `start`, or a whole length before the end.
    const drop = Math.max(0, Math.min(this.start, this.begin + this.held[0].length - this.length) - this.begin);
    this.held = this.held.map((held) => held.slice(drop));
    this.begin += drop;
    return windows;
  }

  /** Returns the last window, in a list that is empty if everything was kept already. */
  flush() {
    const total = this.begin + this.held[0].length;
    if (this.done >= total) return [];
    const start = Math.max(0, Math.ceil((total - this.length) / this.stride) * this.stride);
    return [this.window(start, this.done, total)];
  }

  /** What lies behind the end is silence. */
  window(start, first, last) {
    const samples = this.held.map((held) => {
      const padded = new Float32Array(this.length);
      padded.set(held.subarray(start - this.begin, start - this.begin + this.length));
      return padded;
    });
    return { samples, first: first - start, last: last - start };
  }
}

export function concatenate(arrays) {
  if (arrays.length === 1) return arrays[0];
  const joined = new Float32Array(arrays.reduce((sum, array) => sum + array.length, 0));
  let at = 0;
  for (const array of arrays) {
    joined.set(array, at);
    at += array.length;
  }
  return joined;
}

function greatestCommonDivisor(a, b) {
  return b ? greatestCommonDivisor(b, a % b) : a;
}

/** The modified Bessel function of order 0. */
function bessel(x) {
  let term = 1, sum = 1;
  for (let k = 1; term > 1e-12 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}
