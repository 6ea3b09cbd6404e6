// Plays stems in sync, piece by piece, so that what is computed already can be heard while the rest is computed.

const PIECE_S = 1;
const AHEAD_S = 2;

export class Player extends EventTarget {
  /** `stems` are those of files.js; more of them may become readable later. */
  constructor(stems, recording) {
    super();
    Object.assign(this, { stems, recording });
    this.rate = recording.sampleRate;
    this.length = recording.nSamples;
    this.playing = this.loop = false;
    this.part = null; // [begin, end] in samples, which the loop repeats instead of everything
    this.from = 0; // sample that is heard at the time `origin` of the context
    this.mixes = stems.map(() => ({ muted: false, solo: false, volume: 1 }));
  }

  get readable() {
    return Math.min(...this.stems.map((stem) => stem.readable));
  }

  /** The sample that is heard now. */
  get position() {
    if (!this.playing || !this.context) return this.from;
    const played = Math.max(0, this.context.currentTime - this.origin) * this.rate;
    return this.place(Math.min(Math.round(played), this.scheduled));
  }

  /** The sample that is heard when so many have been played. */
  place(played) {
    const place = this.from + played;
    if (!this.loop || place < this.end) return Math.min(place, this.length);
    return this.begin + ((place - this.end) % (this.end - this.begin));
  }

  get begin() {
    return this.part?.[0] ?? 0;
  }

  get end() {
    return this.part?.[1] ?? this.length;
  }

  /** Repeats a part, [begin, end] in samples, or everything; or ends that, and forgets the part. */
  repeat(loop, part = null) {
    const position = this.position;
    this.loop = loop;
    this.part = loop ? part : null;
    this.seek(position);
  }

  isAudible(index) {
    const { muted, solo } = this.mixes[index];
    return solo || (!muted && !this.mixes.some((mix) => mix.solo));
  }

  /** Changes muted, solo or volume of a stem. */
  change(index, settings) {
    Object.assign(this.mixes[index], settings);
    this.applyMixes();
    this.changed();
  }

  applyMixes() {
    this.gains?.forEach((gain, index) => {
      const level = this.isAudible(index) ? this.mixes[index].volume : 0;
      gain.gain.setTargetAtTime(level, this.context.currentTime, 0.01);
    });
  }

  async play() {
    if (!this.context) {
      this.context = new AudioContext({ sampleRate: Math.min(Math.max(this.rate, 8_000), 96_000) });
      this.gains = this.stems.map(() => {
        const gain = this.context.createGain();
        gain.connect(this.context.destination);
        return gain;
      });
      this.applyMixes();
    }
    await this.context.resume();
    this.playing = true;
    this.start();
    this.changed();
  }

  pause() {
    this.from = this.position;
    this.playing = false;
    this.silence();
    this.changed();
  }

  seek(sample) {
    this.from = Math.min(Math.max(0, Math.round(sample)), this.length);
    if (this.playing) this.start();
    this.changed();
  }

  /** Frees the sound device. */
  close() {
    this.playing = false;
    this.silence();
    this.context?.close();
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }

  silence() {
    clearTimeout(this.timer);
    this.run = null;
    for (const source of this.sources ?? []) source.stop();
    this.sources = new Set();
  }

  start() {
    this.silence();
    if (this.from >= (this.loop ? this.end : this.length)) this.from = this.loop ? this.begin : 0;
    this.scheduled = 0; // samples, counted from `from`
    this.origin = this.context.currentTime + 0.05;
    this.schedule((this.run = {}));
  }

  /** Schedules pieces until AHEAD_S of audio lie ahead, again and again. */
  async schedule(run) {
    while (this.run === run) {
      const begin = this.place(this.scheduled);
      if (begin >= this.length) {
        if (this.position < this.length) break;
        return this.pauseAt(0);
      }
      const ahead = this.scheduled / this.rate - (this.context.currentTime - this.origin);
      const end = Math.min(this.loop ? this.end : this.length, begin + PIECE_S * this.rate, this.readable);
      if (ahead > AHEAD_S || end <= begin) break;
      const pieces = await Promise.all(this.stems.map((stem) => stem.read(begin, end)));
      if (this.run !== run) return;
      const late = this.context.currentTime - (this.origin + this.scheduled / this.rate);
      if (late > 0) this.origin += late + 0.05; // the computation or the disk was slower than the sound
      pieces.forEach((samples, index) => this.add(samples, index, this.origin + this.scheduled / this.rate));
      this.scheduled += end - begin;
    }
    if (this.run === run) this.timer = setTimeout(() => this.schedule(run), 100);
  }

  pauseAt(sample) {
    this.playing = false;
    this.silence();
    this.from = sample;
    this.changed();
  }

  add(samples, index, when) {
    const { nChannels } = this.recording;
    const buffer = this.context.createBuffer(nChannels, samples.length / nChannels, this.rate);
    for (let channel = 0; channel < nChannels; channel++) {
      const target = buffer.getChannelData(channel);
      for (let i = 0; i < target.length; i++) target[i] = samples[i * nChannels + channel];
    }
    const source = new AudioBufferSourceNode(this.context, { buffer });
    source.connect(this.gains[index]);
    source.onended = () => this.sources.delete(source);
    this.sources.add(source);
    source.start(when);
  }
}
